"""The command line: a file per family of commands; heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eksim import __version__
from eksim.cli import catalog, conformance, plot
from eksim.cli import check as check_command
from eksim.cli import run as run_commands
from eksim.cli import sweep as sweep_commands
from eksim.errors import EXIT_INTERRUPTED, EksimError

app = typer.Typer(
    name="eksim",
    help="Simulate an EKS cluster's pod IP capacity: run scenarios, sweep, explain; without AWS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run_commands.run)
app.command("validate")(run_commands.validate)
app.command("schema")(run_commands.schema)
app.command("sweep")(sweep_commands.sweep)
app.command("search")(sweep_commands.search)
app.command("plot")(plot.plot)
app.command("check")(check_command.check)
app.command("instance-types")(catalog.instance_types)
app.command("max-pods")(catalog.max_pods_command)
app.add_typer(conformance.app, name="conformance")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"eksim {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Simulate an EKS cluster's pod IP capacity: run scenarios, sweep, explain; without AWS."""


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
