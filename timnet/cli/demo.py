"""`timnet demo`: the whole pipeline on a synthetic corpus."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from timnet.cli.common import app, bar, given_path, say
from timnet.errors import ParameterError
from timnet.paths import Workspace


@app.command()
def demo(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", parser=given_path, help="Folder of the demo's workspace."),
    ] = Path("demo"),
) -> None:
    """Run the whole pipeline on a synthetic corpus, in a workspace of its own."""
    from timnet import records
    from timnet.corpora import demo as corpus
    from timnet.evaluation.protocols import MEANING
    from timnet.project import demo as clone

    start = time.monotonic()
    if not all(Path(name).exists() for name in ("dvc.yaml", ".git", "timnet/__init__.py")):
        raise ParameterError("this folder is no clone of the project. Run this in the root of one.")
    if folder.resolve() == Path().resolve():
        raise ParameterError("this is the folder of the project itself; name another one.")
    if (folder / clone.MARK).exists():
        say(f"continuing in {folder}/ with the current code (delete the folder to start again)")
        clone.refresh(Path(), folder)
    else:
        number = corpus.CORPUS.utterances
        say(f"setting up {folder}/: a clone of this project and {number} synthetic recordings")
        with bar("generate demo", number) as advance:
            clone.set_up(Path(), folder, advance)
    workspace = Workspace(folder)
    seconds = {"set up": time.monotonic() - start} | clone.reproduce(folder, say)
    say("")
    for run in ("demo-random", "demo-speaker"):
        scored = records.read_artifact(workspace.run_results(run) / "metrics.json", records.Metrics)
        for protocol in (name for name in MEANING if name in scored):
            say(f"UAR {scored[protocol]['uar']:6.2f} %   {protocol:19}  {MEANING[protocol]}")
    recipe = corpus.CORPUS
    say(f"chance {100 / len(recipe.labels):3.0f} %   on {recipe.utterances} utterances")
    taken = ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items() if value >= 0.5)
    say(f"\n{sum(seconds.values()):.0f} s: {taken}")
    say(f"\nOpen {workspace.report} in a browser; the tables are text files in")
    say(f"{workspace.tables}/. Change {workspace.params} and run `timnet demo` again: only what")
    say("depends on the change is run again.")
