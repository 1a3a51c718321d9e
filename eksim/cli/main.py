"""The command line: a file per family of commands; heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from eksim import __version__
from eksim.cli import catalog, conformance, plot
from eksim.cli import check as check_command
from eksim.cli import run as run_commands
from eksim.cli import sweep as sweep_commands
from eksim.errors import EXIT_INPUT, EXIT_INTERRUPTED, EksimError

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
    if sys.stdout is None:  # closed by the caller, who wants none of it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except EksimError as error:
        print(f"eksim: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("eksim: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        where = f" {error.filename}" if error.filename else " the output"
        print(f"eksim: cannot use{where}: {error.strerror or error}", file=sys.stderr)
        sys.stdout = None  # what it still holds cannot be written either
        sys.exit(EXIT_INPUT)
