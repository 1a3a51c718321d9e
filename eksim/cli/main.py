"""The command line: a file per family of commands; heavy imports happen inside the commands."""

from __future__ import annotations

import sys

import typer

from eksim.cli import conformance
from eksim.errors import EXIT_INTERRUPTED, EksimError

app = typer.Typer(
    name="eksim",
    help="Simulate an EKS cluster's pod IP capacity: run scenarios, sweep, explain; without AWS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(conformance.app, name="conformance")


def entry_point() -> None:
    """The console script: eksim's own errors become one line and their exit code."""
    try:
        app()
    except EksimError as error:
        print(f"eksim: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("eksim: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_INTERRUPTED)
