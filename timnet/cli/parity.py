"""`timnet parity`: the authors' weights on features extracted here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timnet.cli.common import app, bars, given_path, say, workers
from timnet.errors import ArtifactError
from timnet.paths import Workspace

if TYPE_CHECKING:
    from timnet.evaluation.parity import Parity


@app.command()
def parity(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus of the paper.")],
    weights: Annotated[
        Path, typer.Option(metavar="ZIP", parser=given_path, help="ZIP of the authors' weights.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=given_path,
            help="Folder of the recordings, instead of data/<corpus>.",
        ),
    ] = None,
) -> None:
    """Score the authors' weights on features extracted here, against the paper's scores."""
    result = measure_parity(corpus, data or Workspace(Path()).corpus(corpus), weights)
    say(f"{corpus}: {result.correct} of {result.confusion.sum()} utterances correct")
    say(f"ours        UAR {result.uar:.2f} %  WAR {result.war:.2f} %")
    say(f"the paper   UAR {result.paper[0]:.2f} %  WAR {result.paper[1]:.2f} %")
    if not result.holds:
        raise ArtifactError(
            f"{corpus}: these are not the paper's results. Check that the recordings are the "
            "originals (timnet validate) and that the weights belong to this corpus."
        )
    say("the same results, including the confusion matrix")


def measure_parity(corpus: str, folder: Path, weights: Path) -> Parity:
    """What the authors' weights say of the recordings in a folder, with a bar for each step."""
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

    from timnet import corpora
    from timnet.evaluation import parity as check

    with bars(MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.advance(tasks[what], done)

        return check.measure(corpora.corpus(corpus), folder, weights, workers(), report)
