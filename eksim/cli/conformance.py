"""``eksim conformance cni|scheduler|controllers|events FILE…``: replay recordings of the real programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eksim.testing.traces import Outcome

app = typer.Typer(no_args_is_help=True, help="Replay recordings of the real components and print what differs.")

Files = Annotated[list[Path], typer.Argument(help="Recordings: JSON, gzipped or not; single runs or collections.")]


def report(outcomes: Iterable[Outcome], what: str) -> None:
    """Print the first difference of each run that differs and the closing line; exit 1 on any difference."""
    total = same = 0
    for outcome in outcomes:
        total += 1
        if outcome.difference is None:
            same += 1
        else:
            typer.echo(f"{outcome.id}: {outcome.difference}")
    typer.echo(f"{same} of {total} {what} replay without a difference")
    if same != total:
        raise typer.Exit(1)


@app.command()
def cni(
    files: Files,
    mode: Annotated[str, typer.Option(help="Only traces of this mode: secondary-ip or prefix.")] = "",
) -> None:
    """Replay runs of the real ipamd."""
    from eksim.testing.replay_cni import replay_cni_files

    report(replay_cni_files(files, mode=mode), "traces")


@app.command()
def scheduler(files: Files) -> None:
    """Replay decisions of the real kube-scheduler."""
    from eksim.testing.replay_scheduler import replay_scheduler_files

    report(replay_scheduler_files(files), "cases")


@app.command()
def controllers(files: Files) -> None:
    """Replay runs of the real kube-controller-manager's controllers, and tables of their functions."""
    from eksim.testing.replay_controllers import replay_controller_files

    report(replay_controller_files(files), "cases")


@app.command()
def events(files: Files) -> None:
    """Replay what the real event recorders send to the API server."""
    from eksim.testing.replay_events import replay_event_files

    report(replay_event_files(files), "cases")
