"""Commands for people: try it, check it, see what a run would do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from timnet.cli.common import app, bar, read_json, say, workers
from timnet.errors import ArtifactError, ParameterError, TimnetError
from timnet.paths import Workspace
from timnet.project import git

if TYPE_CHECKING:
    from timnet.evaluation.parity import Parity

MARK = ".git/timnet-demo"  # what `set_up_demo` made, and may be given other code


@app.command()
def parity(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus of the paper.")],
    weights: Annotated[Path, typer.Option(help="ZIP of the authors' weights.")],
    data: Annotated[
        Path | None, typer.Option(help="The corpus' recordings, in place of data/<corpus>.")
    ] = None,
) -> None:
    """Score the authors' weights on features extracted here, against the paper's figures."""
    result = measure_parity(corpus, data or Workspace(Path()).corpus(corpus), weights)
    say(f"{corpus}: {result.correct} of {result.confusion.sum()} utterances recognised")
    say(f"ours        UAR {result.uar:.2f} %  WAR {result.war:.2f} %")
    say(f"the paper   UAR {result.paper[0]:.2f} %  WAR {result.paper[1]:.2f} %")
    if not result.holds:
        raise ArtifactError(
            f"{corpus}: these are not the paper's figures. Check that the recordings are the "
            "originals (timnet validate) and that the weights are this corpus'."
        )
    say("the same figures, confusion matrix included")


def measure_parity(corpus: str, folder: Path, weights: Path) -> Parity:
    """What the authors' weights say of the recordings in a folder."""
    from timnet import corpora
    from timnet.dataset import features as extraction
    from timnet.dataset import manifest as listing
    from timnet.evaluation import parity as check

    recipe = corpora.corpus(corpus)
    settings = check.settings(recipe)
    network = check.read_networks(recipe, weights)  # before the minute that features take
    with bar("manifest", recipe.utterances) as advance:
        manifest = listing.build(recipe, folder, advance)
    check.refuse_incomplete(recipe, folder, manifest)
    with TemporaryDirectory() as scratch, bar("features", len(manifest)) as advance:
        target, shards = Path(scratch, "features.parquet"), Path(scratch, "shards")
        extraction.extract(manifest, folder, settings, target, shards, workers(), advance)
        table, _ = extraction.read(target, settings)
    return check.parity(recipe, table, network)


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the demo's workspace lies.")
    ] = Path("demo"),
) -> None:
    """Run the whole pipeline on a synthetic corpus, in a workspace of its own."""
    from timnet import records
    from timnet.corpora import demo as corpus
    from timnet.evaluation.score import MEANING

    if not Path("dvc.yaml").exists() or not Path(".git").exists():
        raise ParameterError("no checkout of the project here. Run this in the root of its clone.")
    if folder.resolve() == Path().resolve():
        raise ParameterError("this folder is where the code comes from; name another one.")
    if (folder / MARK).exists():
        say(f"going on in {folder}/ with the code as it is now (delete it to start anew)")
        _refresh(Path(), folder)
    else:
        number = corpus.CORPUS.utterances
        say(f"setting up {folder}/: a clone of this project and {number} synthetic recordings")
        set_up_demo(Path(), folder)
    workspace = Workspace(folder)
    _run(folder, sys.executable, "-m", "dvc", "repro")
    say("")
    for run in ("demo-random", "demo-speaker"):
        figures = read_json(workspace.run_results(run) / "metrics.json", records.Metrics)
        for protocol in (name for name in MEANING if name in figures):
            say(f"UAR {figures[protocol]['uar']:6.2f} %   {protocol:9}  {MEANING[protocol]}")
    recipe = corpus.CORPUS
    say(f"chance {100 / len(recipe.labels):3.0f} %   on {recipe.utterances} utterances")
    say(f"\nOpen {workspace.report} in a browser; the tables as text lie in")
    say(f"{workspace.tables}/. Change {workspace.params} and run `timnet demo` again: only what")
    say("depends on the change is done anew.")


def set_up_demo(source: Path, folder: Path) -> None:
    """A clone of the project whose only corpus is the synthetic one.

    A clone, since stages depend on the project's own files and results name its commit; apart,
    since DVC wants all recordings of data.dvc and the checkout is to stay as it is.
    """
    from timnet.corpora import demo as corpus

    if folder.exists():
        raise ParameterError(f"{folder} exists and is no demo workspace; name another folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _run(source, "git", "clone", "--quiet", "--no-hardlinks", ".", str(partial.absolute()))
    _refresh(source, partial)
    (partial / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(partial / "results", ignore_errors=True)
    workspace = Workspace(partial)
    shutil.copyfile(str(files("timnet").joinpath("demo.yaml")), workspace.params)
    # DVC then adds to git what it writes, in place of telling how to
    _run(partial, sys.executable, "-m", "dvc", "config", "--local", "core.autostage", "true")
    with bar("generate demo", corpus.CORPUS.utterances) as advance:
        corpus.generate(workspace.corpus("demo"), progress=advance)
    _run(partial, sys.executable, "-m", "dvc", "add", "--quiet", "data")
    _run(partial, "git", "add", "--all")
    author = ("-c", "user.name=timnet demo", "-c", "user.email=demo@localhost")
    _run(partial, "git", *author, "commit", "--quiet", "--message", "Set up the demo")
    (partial / MARK).touch()
    partial.rename(folder)


def _refresh(source: Path, folder: Path) -> None:
    """Give a clone the code and the stages of `source` as they are now, committed or not."""
    for path in _watched(folder):
        if not (source / path).is_file():
            (folder / path).unlink(missing_ok=True)
    for path in _watched(source):
        if (source / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, folder / path)


def _watched(folder: Path) -> list[str]:
    """Files of the code and the stages that git knows, or would add."""
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    found = git.ask(folder, *listed, "--", "dvc.yaml", "timnet")
    if found is None:
        raise TimnetError(f"`git {' '.join(listed)}` failed in {folder or '.'}")
    return [path for path in found.split("\0") if path]


def _run(folder: Path, *command: str) -> None:
    """Run a program in `folder`, with this environment's own programs first on the path."""
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    status = subprocess.run(command, cwd=folder, env=environment).returncode
    if status:
        raise TimnetError(f"`{' '.join(command)}` ended with {status} in {folder or '.'}")
