"""Fills the marked blocks of README and of some pages from what is committed.

`make readme` runs it after results have changed; a test holds the two together. A block stands
between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import softmax

from timnet.corpora import CORPORA
from timnet.evaluation import metrics, score
from timnet.evaluation.protocols import LAST
from timnet.models.model import IN_THE_BOX
from timnet.paper import paper
from timnet.reporting.render import print_figure
from timnet.reporting.scored import OURS, PAPER_S, svm

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "docs/explanation/results.md",
    ROOT / "docs/explanation/protocols.md",
    ROOT / "docs/explanation/unseen-speakers.md",
)
PROTOCOLS = ("best-epoch", "last-epoch", "speaker-independent")
# utterances that the authors' weights recognise on features extracted here: tests/test_parity.py
PARITY = {"casia": 1136, "emodb": 512, "emovo": 541, "ravdess": 1326}
# recordings of another corpus and language than the model in the package was trained on
ASKED_ABOUT = ("data/emovo/f1/gio-f1-b1.wav", "data/emovo/f3/tri-f3-l1.wav")


def scores() -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the table of single corpora for TIM-Net as in the paper, by corpus and protocol."""
    return _scores_of("tim-net")


def _scores_of(method: str) -> dict[tuple[str, str], dict[str, str]]:
    return {
        (row["corpus"], row["protocol"]): row
        for row in _table("single-corpus")
        if (row.get("method") or row["network"]).lower() == method
    }


def _table(name: str) -> list[dict[str, str]]:
    return _rows(f"results/tables/{name}.csv")


def _rows(path: str) -> list[dict[str, str]]:
    with (ROOT / path).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finding() -> str:
    """The sentences that README opens its results with."""
    known = scores()
    rows = [known["emovo", protocol] for protocol in PROTOCOLS]
    rows.append(_scores_of("svm")["emovo", PROTOCOLS[-1]])
    best, last, unseen, simple = (_with_interval(row).replace(" ", " % ", 1) for row in rows)
    together = _both()["emovo"].replace(", ", "–").replace(" ", " % ", 1)
    reported = print_figure(paper()["table_1_single_corpus"]["emovo"]["TIM-Net"][0], 1)
    others = [
        float(_uar(row)[0])
        for (corpus, protocol), row in known.items()
        if protocol == PROTOCOLS[-1] and corpus != "emovo"
    ]
    mean = next(row for row in _table("joined") if row["corpus"] == "mean without emovo")
    gain = float(mean["against the paper's recipe"].split()[0])
    return f"""\
On EMOVO (UAR: unweighted average recall, the mean of the recalls of all emotions; chance 14.3 %):

- The paper reports {reported} %, with the epoch chosen on the test fold. Our reproduction reaches
  {best}.
- At the last epoch it reaches {last}. The same speakers are still in train and test.
- **On unseen speakers it reaches {unseen}.** An SVM on simple statistics of the same
  features reaches {simple}. (The network on four other corpora: {min(others)} to
  {max(others)} %.)
- Adapted to all recordings of each tested speaker, without labels, network and SVM together reach
  {together}. Optimistic: the recipe was chosen on these speakers. (On four other corpora
  this is on average {gain:.0f} points above the network alone, not adapted.)
- Human listeners reach 67 % on all recordings, and 80 % on two of the sentences."""


def corpora() -> str:
    """Which corpora there are and how to get them."""
    rows = []
    for name, corpus in sorted(CORPORA.items()):
        if name == "demo":
            continue
        share = f"{PARITY[name]} of {corpus.utterances}" if name in PARITY else "-"
        rows.append(
            (
                corpus.title,
                corpus.language,
                f"{corpus.utterances:,}",
                str(len(corpus.speakers)),
                corpus.licence if corpus.download else "by agreement",
                f"`timnet acquire {name}`" if corpus.download else "by request",
                share,
            )
        )
    head = ("corpus", "language", "utterances", "speakers", "licence", "get it", "parity")
    return _markdown(head, rows, right=(2, 3, 6))


def results() -> str:
    """UAR under each protocol beside the paper's, the adapted recipe's and the SVM's."""
    known, plain, normalised = scores(), _scores_of("svm"), _scores_of("svm, speaker-normalised")
    adapted, rows = _scores_of("tim-net, recipe adapted"), []
    both = _both()
    for name in sorted({corpus for corpus, _ in known}):
        unseen = (name, PROTOCOLS[-1])
        reported = paper()["table_1_single_corpus"].get(name, {}).get("TIM-Net")
        stated = print_figure(reported[0], 1) if reported else "-"
        of_protocols = (_with_interval(known.get((name, protocol))) for protocol in PROTOCOLS)
        # without intervals, so that the page is wide enough for all columns
        simple, adapted_simple = (
            _uar(of[unseen])[0] if unseen in of else "-" for of in (plain, normalised)
        )
        told = (simple, _with_interval(adapted.get(unseen)), adapted_simple)
        together = both.get(name, "-").replace(", ", "–")
        rows.append((CORPORA[name].title, stated, *of_protocols, *told, together))
    head = ("corpus", "paper", *PROTOCOLS, "SVM", "adapted", "adapted SVM", "both")
    return _markdown(head, rows, right=tuple(range(1, len(head))))


def _with_interval(row: dict[str, str] | None) -> str:
    """`28.1 [21.2–35.8]`"""
    if row is None:
        return "-"
    value, low, high = _uar(row)
    return f"{value} [{low}–{high}]"


def _both() -> dict[str, str]:
    """UAR of the adapted recipe together with the SVM by corpus: `40.1 [34.4, 46.0]`"""
    return {row["corpus"]: row["recipe adapted + SVM"] for row in _table("joined")}


def _uar(row: dict[str, str]) -> list[str]:
    """UAR of a row of the table of single corpora, and its interval, to a decimal."""
    scores = json.loads((ROOT / "results/runs" / row["run"] / "scores.json").read_text())
    found = scores[row["protocol"]]["uar"]
    return [print_figure(found[name], 1) for name in ("value", "low", "high")]


def corrected() -> str:
    """The scores that the paper's authors published later, of the last epoch, beside ours."""
    found = paper()["last_epoch_single_corpus"]
    theirs = {name: found[name]["TIM-Net"] for name in found if found[name]["TIM-Net"]}
    rows = [
        (CORPORA[name].title, print_figure(theirs[name][0], 1), _with_interval(row))
        for (name, protocol), row in sorted(scores().items())
        if protocol == "last-epoch" and name in theirs
    ]
    return _markdown(("corpus", "the authors", "ours"), rows, right=(1, 2))


def ablations() -> str:
    """Each ablation against the whole network, of the corpora that have some."""
    rows = [row for row in _table("table-s3") if row["precision"]]
    ablated = {row["corpus"] for row in rows if row["network"] != "TIM-Net"}
    columns = [name for name in rows[0] if "UAR" in name or "against" in name or name == "seeds"]
    told = [
        (CORPORA[row["corpus"]].title, row["network"], *(row[name] for name in columns))
        for row in rows
        if row["corpus"] in ablated
    ]
    return _markdown(("corpus", "network", *columns), told, right=tuple(range(2, 2 + len(columns))))


def sentences() -> str:
    """UAR by what is unseen in the test: nothing, sentences, speakers, both."""
    sentence, both = "sentence-independent", "speaker-and-sentence-independent"
    columns = (PROTOCOLS[1], sentence, PROTOCOLS[2], both)
    rows = [row for row in _table("strictness") if row[sentence] != "-"]
    told = [
        (_title(row["corpus"]), row["method"], *(row[name] for name in columns)) for row in rows
    ]
    return _markdown(("corpus", "method", *columns), told, right=(2, 3, 4, 5))


def baseline() -> str:
    """UAR of the SVM under the stricter protocols, by corpus."""
    plain, normalised = _scores_of("svm"), _scores_of("svm, speaker-normalised")
    columns = [(plain, protocol) for protocol in PROTOCOLS[1:]] + [(normalised, PROTOCOLS[-1])]
    rows = [
        (CORPORA[name].title, *(of.get((name, each), {}).get("UAR", "-") for of, each in columns))
        for name in sorted({corpus for corpus, _ in plain})
    ]
    head = ("corpus", *PROTOCOLS[1:], f"{PROTOCOLS[-1]}, speaker-normalised")
    return _markdown(head, rows, right=(1, 2, 3))


def judged() -> str:
    """The recipe for unseen speakers on every corpus, beside what it has to beat."""
    rows = _table("judged")
    names = [name for name in rows[0] if name != "commit"]
    told = [tuple(_title(row[name]) for name in names) for row in rows]
    return _markdown(tuple(names), told, right=tuple(range(1, len(names))))


def joined() -> str:
    """The recipe for unseen speakers together with the SVM."""
    rows = _table("joined")
    told = [tuple(map(_title, row.values())) for row in rows]
    return _markdown(tuple(rows[0]), told, right=tuple(range(1, len(rows[0]))))


def _title(cell: str) -> str:
    """A corpus as it is written; any other cell as it is."""
    return CORPORA[cell].title if cell in CORPORA else cell


def controlled() -> str:
    """Each recipe alone on EMOVO's unseen speakers, and the chosen one."""
    rows = [{name: row[name] for name in row if name != "run"} for row in _table("unseen-speakers")]
    told = [tuple(row.values()) for row in rows]
    return _markdown(tuple(rows[0]), told, right=(2, 3, 4, 5))


def cross() -> str:
    """Table 2: the mean over all pairs of corpora."""
    rows = _table("table-2")
    return _markdown(tuple(rows[0]), [tuple(row.values()) for row in rows], right=(1, 2, 3, 4))


def epochs() -> str:
    """Cross-corpus scores of the last epoch, and of the best on the tested corpus."""
    rows = _rows("benchmarks/cross_epochs.csv")
    pairs = paper()["table_s4_cross_corpus_best"]
    printed = dict(zip(pairs["order"], pairs["TIM-Net"], strict=True))
    told = [
        (
            f"{CORPORA[row['source']].title} to {CORPORA[row['tested on']].title}",
            row["last epoch UAR"],
            f"{row['best epoch UAR']} (epoch {row['best epoch']})",
            print_figure(printed[f"{row['source']}>{row['tested on']}"][0], 1),
        )
        for row in rows
    ]
    head = ("pair", "last epoch", "best epoch on the tested corpus", "paper, best of ten seeds")
    return _markdown(head, told, right=(1, 2, 3))


def across() -> str | None:
    """Table 2 in two sentences; None before all of it is here."""
    uar = {row["method"]: row["UAR"].split(" ")[0] for row in _table("table-2")}
    told = [OURS, svm(), "TIM-Net, recipe adapted", svm("speaker")]
    if not all(uar.get(method, "-")[0].isdigit() for method in told):
        return None
    ours, plain, adapted, normalised = (uar[method] for method in told)
    return (
        "**Cross-corpus**: trained on one corpus, tested on another (Table 2, five emotions, "
        f"chance 20 %), the paper reports {uar[PAPER_S]} % UAR. At the last epoch its recipe "
        f"reaches {ours} %, and the SVM {plain} %. With unlabelled recordings of the tested "
        f"speakers the adapted recipe reaches {adapted} % and the adapted SVM {normalised} %. "
        "([Means of 20 pairs](docs/explanation/results.md#cross-corpus), three training seeds. The "
        "adapted recipe was tuned on EMOVO, which is in eight of the pairs.)"
    )


def screened() -> str:
    """What else was tried on EMOVO's unseen speakers."""
    rows = [
        (row["settings"], row["epochs"], f"{float(row['uar']):.1f} ± {row['seeds_sd']}")
        for row in _rows("benchmarks/recipes.csv")
    ]
    head = ("settings that differ from the paper's", "epochs", "UAR")
    return _markdown(head, rows, right=(1, 2))


def voted() -> str:
    """UAR at the last epoch of random folds, and of the mean probability of the seeds' networks."""
    known, rows = scores(), []
    for corpus, figures in sorted(paper()["table_1_single_corpus"].items()):
        if (corpus, "last-epoch") in known:
            name = CORPORA[corpus].title
            told = _uar(known[corpus, "last-epoch"])[0], f"{_vote(f'{corpus}-random'):.1f}"
            rows.append((name, print_figure(figures["TIM-Net"][0], 1), *told))
    head = ("corpus", "paper, best-epoch", "last-epoch", "three seeds together")
    return _markdown(head, rows, right=(1, 2, 3))


def _vote(run: str) -> float:
    folder = ROOT / "results/runs" / run
    labels = tuple(json.loads((folder / "run.json").read_text(encoding="utf-8"))["labels"])
    table = pq.read_table(folder / "predictions.parquet")
    table = table.filter(pc.equal(table["epoch_kind"], LAST))
    truth, logits = score.truth_and_logits(table, labels)
    _, first, place = np.unique(
        table["utterance"].to_pylist(), return_index=True, return_inverse=True
    )
    total = np.zeros((len(first), len(labels)))
    np.add.at(total, place, softmax(logits, axis=1))
    told = metrics.confusion_matrix(truth[first], total.argmax(1), len(labels))
    return 100 * metrics.uar(told)


def known_speakers() -> str:
    """What else was tried on EMOVO's random folds."""
    rows = [
        (
            *(row[name] for name in ("settings", "epochs", "folds")),
            *(f"{float(row[name]):.1f}" for name in ("uar", "paper_recipe")),
        )
        for row in _rows("benchmarks/known_speakers.csv")
    ]
    head = (
        "settings that differ from the paper's",
        "epochs",
        "folds",
        "UAR",
        "paper's recipe there",
    )
    return _markdown(head, rows, right=(1, 3, 4))


def prediction() -> str | None:
    """What the model in the package says of two recordings; None where either is not here."""
    if not IN_THE_BOX.is_file() or not all((ROOT / path).is_file() for path in ASKED_ABOUT):
        return None
    command = ["predict", *ASKED_ABOUT]
    program = Path(sys.executable).with_name("timnet")
    said = subprocess.run([program, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    text = "\n".join(line.rstrip() for line in (said.stderr + said.stdout).splitlines())
    return f"```\n$ timnet predict {' '.join(ASKED_ABOUT)}\n{text}\n```"


BLOCKS: dict[str, Callable[[], str | None]] = {
    "finding": finding,
    "results": results,
    "corpora": corpora,
    "corrected": corrected,
    "ablations": ablations,
    "sentences": sentences,
    "baseline": baseline,
    "judged": judged,
    "joined": joined,
    "controlled": controlled,
    "cross": cross,
    "epochs": epochs,
    "across": across,
    "screened": screened,
    "voted": voted,
    "known": known_speakers,
    "prediction": prediction,
}


def filled(text: str) -> str:
    """A page with its blocks as they should be; one that cannot be made here stays as it is."""
    for name, make in BLOCKS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start in text and (content := make()) is not None:
            before, _, rest = text.partition(start)
            text = f"{before}{start}{content}\n{end}{rest.partition(end)[2]}"
    return text


def _markdown(
    head: tuple[str, ...], rows: list[tuple[str, ...]], right: tuple[int, ...] = ()
) -> str:
    rule = tuple("---:" if column in right else "---" for column in range(len(head)))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
