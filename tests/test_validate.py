"""The contract of EMOVO on manifests made up from its record; no recording is read."""

from __future__ import annotations

import dataclasses
import json
from itertools import cycle

import pyarrow as pa
import pytest

from timnet.corpora.corpus import Corpus
from timnet.corpora.emovo import CORPUS
from timnet.dataset.validate import require_passed, validate
from timnet.errors import CorpusError
from timnet.records import originals
from timnet.schemas import MANIFEST

RATE = 48000  # Hz


def rows():
    """588 rows in the right counts; ids such as `sad-f1-0`, 2.0 s each."""
    return [
        {
            "utterance": f"{emotion}-{speaker}-{index // 6}",
            "speaker": speaker,
            "emotion": emotion,
            "sentence": None,
            "path": f"{speaker}/{emotion}-{speaker}-{index // 6}.wav",
            "sample_rate": RATE,
            "channels": 2,
            "samples": 2 * RATE,
            "sha256": f"content of {emotion}-{speaker}-{index // 6}",
        }
        for emotion in CORPUS.labels
        for index, speaker in zip(range(CORPUS.counts[emotion]), cycle(CORPUS.speakers))
    ]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """A function that says which hashes of the originals are known; none before it is called."""

    def originals_are(hashes):
        monkeypatch.setattr(Corpus, "originals", property(lambda _: hashes))

    originals_are({})
    return originals_are


def check(rows, corpus=CORPUS):
    return validate(corpus, pa.Table.from_pylist(rows, schema=MANIFEST))


def failed(summary, severity):
    return {
        check["check"]: check["message"]
        for check in summary["checks"]
        if not check["passed"] and check["severity"] == severity
    }


def change(**values):
    """A defect of the first row of `rows`, `angry-f1-0`."""
    return lambda rows: [rows[0] | values, *rows[1:]]


def without(**values):
    ((column, value),) = values.items()
    return lambda rows: [row for row in rows if row[column] != value]


def test_whole_corpus_passes_twice_alike_and_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    summary = check(rows())

    assert summary["passed"] and not failed(summary, "error") and not failed(summary, "warning")
    assert (summary["corpus"], summary["utterances"], summary["speakers"]) == ("emovo", 588, 6)
    require_passed(summary)
    assert json.dumps(check(rows())) == json.dumps(summary)
    assert not list(scratch.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        pytest.param(
            without(utterance="sad-m3-13"),
            ["587 utterances; expected 588", "utterances per class: sad 83 (expected 84)"],
            id="utterance missing",
        ),
        pytest.param(
            without(emotion="fear"),
            ["504 utterances; expected 588", "missing classes: fear;", "fear 0 (expected 84)"],
            id="class missing",
        ),
        pytest.param(
            without(speaker="m2"),
            ["missing speakers: m2; expected f1, f2, f3, m1, m2, m3", "sad 70 (expected"],
            id="speaker missing",
        ),
        pytest.param(
            lambda rows: [row | {"speaker": "f1"} for row in rows],
            ["missing speakers: f2, f3, m1, m2, m3;"],
            id="speakers missing",
        ),
        pytest.param(
            change(speaker="x9"), ["unknown speakers: x9 (angry-f1-0);"], id="speaker unknown"
        ),
        pytest.param(
            change(emotion="calm"),
            ["unknown emotions: calm (angry-f1-0);", "angry 83 (expected 84)"],
            id="emotion unknown",
        ),
        pytest.param(
            change(emotion="sad"),
            ["utterances per class: angry 83 (expected 84), sad 85 (expected 84)"],
            id="label moved",
        ),
        pytest.param(
            change(sha256="content of sad-m1-2"),
            ["identical content: (angry-f1-0, sad-m1-2)"],
            id="content twice",
        ),
        pytest.param(
            change(samples=RATE // 4),
            ["durations in s: 0.25 (f1/angry-f1-0.wav); expected 1.0 to 15.0"],
            id="too short",
        ),
        pytest.param(
            change(samples=20 * RATE),
            ["durations in s: 20.0 (f1/angry-f1-0.wav); expected 1.0 to 15.0"],
            id="too long",
        ),
        pytest.param(
            change(channels=3), ["channels: 3 (angry-f1-0); expected 1, 2"], id="three channels"
        ),
        pytest.param(
            change(utterance="angry-f2-0"),
            ["several files for one id: angry-f2-0 (f1/angry-f1-0.wav, f2/angry-f2-0.wav)"],
            id="id twice",
        ),
    ],
)
def test_defect_is_refused_by_name(defect, words):
    summary = check(defect(rows()))
    assert not summary["passed"]
    with pytest.raises(CorpusError) as error:
        require_passed(summary)
    message = str(error.value)
    for expected in ["corpus emovo is not as described", *words, "Restore the original"]:
        assert expected in message
    assert not failed(summary, "warning")


def test_originals_are_told_from_altered_recordings(known):
    known({row["utterance"]: row["sha256"] for row in rows()})
    assert originals(check(rows())) == "588 of 588 recordings are the originals"

    altered = check(change(sha256="altered")(rows()))
    assert altered["passed"]  # copies with other headers are in use
    require_passed(altered)
    assert originals(altered) == "587 of 588 recordings are the originals"
    (message,) = failed(altered, "warning").values()
    assert message.startswith("587 of 588") and message.endswith(": f1/angry-f1-0.wav")


def test_swapped_originals_are_both_named(known):
    known({row["utterance"]: row["sha256"] for row in rows()})
    first, second, *rest = rows()
    swapped = [
        first | {"sha256": second["sha256"]},
        second | {"sha256": first["sha256"]},
        *rest,
    ]
    message = failed(check(swapped), "warning")["originals"]
    assert "f1/angry-f1-0.wav, f2/angry-f2-0.wav" in message


def test_without_known_hashes_nothing_is_said_of_originals():
    summary = check(rows())
    assert "originals" not in {check["check"] for check in summary["checks"]}
    assert originals(summary) == "no hashes of its original recordings are known"


def test_many_defects_make_one_message(caplog):
    """Great Expectations logs what it cannot render: no records, a whole page."""
    broken = [
        row | {"samples": 1, "sha256": "same", "speaker": "x1", "emotion": "odd", "channels": 9}
        for row in rows()[:100]
    ]
    summary = check(broken)
    assert len(failed(summary, "error")) == 9
    with pytest.raises(CorpusError, match=r"x1 \(angry-f1-0, .* and 95 more\)"):
        require_passed(summary)
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_another_sample_rate_only_warns():
    summary = check(change(sample_rate=24000)(rows()))
    assert summary["passed"]
    require_passed(summary)
    assert failed(summary, "warning") == {
        "sample rates": "sample rates in Hz: 24000 (angry-f1-0); expected 48000"
    }


def test_listed_quirks_pass_as_warnings():
    pair, mono, soft = ("angry-f1-0", "sad-m1-2"), ("fear-f3-1", "absent"), ("sad-f1-0",)
    corpus = dataclasses.replace(
        CORPUS,
        channels=(2,),
        quirks={"one pair is identical": pair, "mono": mono, "soft": soft, "all hiss": ()},
    )
    copied = [
        row
        | ({"sha256": "same"} if row["utterance"] in pair else {})
        | ({"channels": 1} if row["utterance"] in mono else {})
        for row in rows()
    ]
    summary = check(copied, corpus)
    require_passed(summary)
    assert failed(summary, "warning") == {
        "documented channels": "documented channels: 1 (fear-f3-1); expected 2",
        "documented copies": "documented identical content: (angry-f1-0, sad-m1-2)",
    }
    assert summary["quirks"] == [
        {"quirk": "one pair is identical", "utterances": [*pair], "seen": [*pair]},
        {"quirk": "mono", "utterances": ["fear-f3-1"], "seen": ["fear-f3-1"]},
        {"quirk": "soft", "utterances": ["sad-f1-0"], "seen": []},
    ]


def test_a_quirk_of_another_kind_excuses_no_channels():
    soft = ("angry-f1-0", "sad-f1-0")
    corpus = dataclasses.replace(CORPUS, channels=(2,), quirks={"nearly silent": soft})
    with pytest.raises(CorpusError, match=r"channels: 1 \(angry-f1-0\); expected 2"):
        require_passed(check(change(channels=1)(rows()), corpus))


def test_a_quirk_excuses_exactly_the_copies_that_it_lists():
    listed = ("angry-f1-0", "angry-f2-0", "angry-f3-0")
    corpus = dataclasses.replace(CORPUS, quirks={"three files are identical": listed})
    for copies in (listed[:2], (*listed, "angry-m1-0")):
        copied = [
            row | ({"sha256": "same"} if row["utterance"] in copies else {}) for row in rows()
        ]
        with pytest.raises(CorpusError, match=rf"identical content: \({', '.join(copies)}\)"):
            require_passed(check(copied, corpus))
