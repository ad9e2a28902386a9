from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archives import laid_out, tree, wav

from timnet.acquire.acquire import state
from timnet.acquire.table import import_table
from timnet.corpora import corpus, custom
from timnet.dataset import manifest
from timnet.errors import CorpusError, ParameterError

HEADER = "path,speaker,emotion,sex\n"
ROWS = [
    ("anna/1.wav", "anna", "happy", "female"),
    ("anna/2.wav", "anna", "sad", "female"),
    ("bert/1.wav", "bert", "happy", ""),
    ("bert/2.flac", "bert", "sad", ""),
    ("bert/3.wav", "bert", "worried", ""),
]
SOUNDS = {
    path: wav(path, 0.5 + number / 10, rate=8000, channels=1 + number % 2)
    for number, (path, *_) in enumerate(ROWS)
}
TABLE = HEADER + "".join(f"{','.join(row)}\n" for row in ROWS)


def sound(samples: np.ndarray) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, samples, 8000, format="WAV")
    return written.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "project" / "data"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    mine = laid_out(
        {
            **SOUNDS,
            "notes.txt": b"",
            "other.wav": b"not listed",
            "copy.wav": SOUNDS["bert/1.wav"],
            "silent.wav": sound(np.zeros(800)),
            "against.wav": sound(np.outer(np.sin(np.arange(800.0)), (0.5, -0.5))),
            ".dvc/1.wav": wav("hidden", 0.5),
            "labels.csv/1.wav": wav("below", 0.5),
        },
        tmp_path / "mine",
    )
    (mine / "table.csv").write_text(TABLE)
    return mine / "table.csv"


def test_a_table_becomes_a_corpus(table, data):
    before = tree(table.parent)
    record = import_table(table, "mine", data)
    assert record.id == "mine"
    assert record.counts == {"happy": 2, "sad": 2, "worried": 1}
    assert record.labels == ("happy", "sad", "worried")
    assert record.speakers == {"anna": "female", "bert": "unknown"}
    assert (record.sample_rates, record.channels, record.seconds) == ((8000,), (1, 2), (0.5, 0.9))
    assert tree(table.parent) == before

    found = tree(data / "mine")
    assert {path: found[path] for path in SOUNDS} == SOUNDS
    assert set(found) - set(SOUNDS) == {"labels.csv", "corpus.json"}
    assert found["labels.csv"].decode() == TABLE

    utterances = record.read(data / "mine")
    assert [(u.id, u.path, u.speaker) for u in utterances[:3]] == [
        ("anna-1", "anna/1.wav", "anna"),
        ("anna-2", "anna/2.wav", "anna"),
        ("bert-1", "bert/1.wav", "bert"),
    ]
    assert Counter(u.emotion for u in utterances) == record.counts
    assert corpus("mine", data) == record
    assert state(record, data).status == "complete"
    assert import_table(table, "mine", data) == record  # again: nothing to do


def test_quotes_behind_a_space_and_an_empty_sex(table, data):
    """As many people write CSV, and as they fill in what they know."""
    table.write_text(TABLE.replace(",anna,", ', "anna",', 1).replace("happy,female", "happy,", 1))
    assert import_table(table, "mine", data).speakers == {"anna": "female", "bert": "unknown"}


def test_in_place(table, data):
    folder = laid_out(SOUNDS, data / "mine")
    (folder / "labels.csv").write_text("\ufeff" + TABLE.replace("path,", " path ,"), "utf-8")
    record = import_table(folder / "labels.csv", "mine", data)
    assert record == custom.load(folder)
    assert set(tree(folder)) - set(SOUNDS) == {"labels.csv", "corpus.json"}


def test_in_place_with_another_name_and_forgotten_files(table, data):
    folder = laid_out({**SOUNDS, "x.wav": b"x"}, data / "mine")
    (folder / "t.csv").write_text(TABLE)
    with pytest.raises(CorpusError, match=r"1 recording not in t.csv: x\.wav"):
        import_table(folder / "t.csv", "mine", data)
    (folder / "x.wav").unlink()
    (folder / "labels.csv").write_text("somebody else's")
    with pytest.raises(CorpusError, match=r"labels.csv is there already"):
        import_table(folder / "t.csv", "mine", data)
    assert (folder / "labels.csv").read_text() == "somebody else's"
    (folder / "labels.csv").unlink()
    import_table(folder / "t.csv", "mine", data)
    assert (folder / "labels.csv").read_text() == TABLE


def test_frozen(table, data):
    record = import_table(table, "mine", data)
    table.write_text(TABLE.replace("worried", "sad"))
    with pytest.raises(CorpusError, match=r"made from another table .*another name, or move"):
        import_table(table, "mine", data)

    laid_out({"bert/4.wav": SOUNDS["bert/1.wav"]}, data / "mine")
    with pytest.raises(CorpusError, match=r"1 recording not in labels.csv: bert/4.wav"):
        record.read(data / "mine")
    (data / "mine" / "bert/4.wav").unlink()
    (data / "mine" / "bert/3.wav").unlink()
    with pytest.raises(CorpusError, match=r"line 6: no file"):
        record.read(data / "mine")
    laid_out({"bert/3.wav": SOUNDS["bert/3.wav"]}, data / "mine")
    (data / "mine" / "labels.csv").write_text(TABLE.replace("worried", "sad"))
    said = state(record, data).detail
    assert "labels.csv differs from corpus.json, which is fixed: 3 utterances of sad" in said
    assert "0 utterances of worried, expected 1. Restore the table" in said


def test_a_recording_that_changed_is_not_imported_in_silence(table, data):
    import_table(table, "mine", data)
    assert import_table(table, "mine", data) == custom.load(data / "mine")
    (table.parent / "bert/1.wav").write_bytes(wav("other", 0.7))
    with pytest.raises(CorpusError, match=r"1 recording beside .* differ .*: bert/1\.wav"):
        import_table(table, "mine", data)


def test_in_the_way(table, data):
    laid_out({"x.wav": b""}, data / "mine")
    with pytest.raises(CorpusError, match=r"without corpus\.json"):
        import_table(table, "mine", data)


def change(old, new):
    return TABLE.replace(old, new, 1)


WRONG = {
    "no table": (None, r"table\.csv: no such file"),
    "not text": (b"\xff\xfe\x00", "cannot be read as a table"),
    "empty": ("", r"no column path, speaker, emotion; it has none\. Expected a first line path,"),
    "semicolons": (TABLE.replace(",", ";"), "no column path, .*separated by commas"),
    "no column": (change("emotion", "label"), "no column emotion; it has path, speaker, label"),
    "no rows": (HEADER, "no rows"),
    "no speaker": (change(",anna,", ",,"), "line 2: no speaker"),
    "short row": (TABLE + "anna/1.wav\n", "line 7: cells 1, expected 4"),
    "long row": (TABLE + "anna/1.wav,anna,sad,female,x\n", "line 7: cells 5, expected 4 "),
    "long row, empty at its end": (TABLE + "anna/1.wav,anna,sad,female,\n", "line 7: cells 5"),
    "a comma that nobody quoted": (
        TABLE.replace("sex", "sentence").replace("happy,female", "happy,well, you"),
        "line 2: cells 5",
    ),
    "after a blank line and a cell of two lines": (
        TABLE.replace("sex", "sentence").replace("bert,sad,", 'bert,sad,"a\nb"\n') + "x,y\n",
        "line 9: cells 2",
    ),
    "a column twice": (change("sex", " emotion"), "line 1: more than one column emotion"),
    "an unknown column twice": (
        change("sex", "x,x").replace("female", "female,1").replace(",\n", ",,\n"),
        "line 1: more than one column x",
    ),
    "a column in capitals": (change("sex", "Sex"), "line 1: column Sex"),
    "a column in capitals beside it": (change("sex", "Emotion"), "line 1: column Emotion"),
    "a speaker in other capitals": (
        change("2.wav,anna", "2.wav,Anna"),
        "line 3: speaker 'Anna' stands before as 'anna'",
    ),
    "a folder": (change("anna/1.wav", "anna"), "line 2: .*anna is a folder, a pipe or a device"),
    "a quote that is not closed": (change("happy", '"happy'), "row that begins in line 2"),
    "another spelling of a speaker": (
        change("anna/1.wav,anna", "anna/1.wav,jose\u0301").replace("2.wav,anna", "2.wav,jos\u00e9"),
        "line 3: speaker 'jos\u00e9' stands before in another Unicode normal form",
    ),
    "other capital letters": (change("anna/1.wav", "anna/1.WAV"), "line 2: no file .*'1.wav'"),
    "a speaker with two spaces": (
        change("anna/1.wav,anna", "anna/1.wav,anna b").replace("2.wav,anna", "2.wav,anna  b"),
        "line 3: speaker 'anna  b' stands before as 'anna b'",
    ),
    "a speaker as a number": (
        change("anna/1.wav,anna", "anna/1.wav,01").replace("2.wav,anna", "2.wav,1.0"),
        "line 3: speaker '1.0' stands before as '01'",
    ),
    "a full-width speaker": (
        change("anna/1.wav,anna", "anna/1.wav,\uff21").replace("2.wav,anna", "2.wav,a"),
        "line 3: speaker 'a' stands before as '\uff21'",
    ),
    "another spelling of a sentence": (
        "path,speaker,emotion,sentence\nanna/1.wav,anna,happy,Why\nanna/2.wav,anna,sad,why\n",
        "line 3: sentence 'why' stands before as 'Why'",
    ),
    "a missing speaker": (change("wav,anna", "wav,nan"), "line 2: speaker 'nan' is what programs"),
    "a missing emotion": (change("happy", "None"), "line 2: emotion 'None' is what programs"),
    "what DVC leaves out": (
        TABLE + ".dvc/1.wav,bert,sad,\n",
        r"line 7: path '\.dvc/1\.wav': DVC leaves out \.dvc",
    ),
    "below what describes it": (
        TABLE + "labels.csv/1.wav,bert,sad,\n",
        r"line 7: path 'labels\.csv/1\.wav' is reserved",
    ),
    "equal recordings": (TABLE + "copy.wav,bert,sad,\n", r"equal recordings: \(.*copy\.wav.*\)"),
    "silence": (TABLE + "silent.wav,bert,sad,\n", r"cannot be used: silent\.wav \(no sound"),
    "channels that cancel out": (TABLE + "against.wav,bert,sad,\n", r"against\.wav \(no sound"),
    "a line feed in a speaker": (change(",anna,", ',"an\nna",'), "line 2: speaker 'an.nna'"),
    "missing file": (change("anna/1", "anna/9"), r"line 2: no file .*anna/9\.wav"),
    "above": (change("anna/1.wav", "../x.wav"), r"line 2: path '\.\./x\.wav' is not below"),
    "absolute": (change("anna/1.wav", "/x.wav"), r"line 2: path '/x\.wav' is not below"),
    "backslash": (change("anna/1", "anna\\1"), "line 2: path .* is not below .*forward slashes"),
    "twice": (change("anna/2", "anna/1"), "line 3: anna/1.wav gives the same utterance as line 2"),
    "emotion": (
        change("happy", "Happy"),
        "line 2: emotion 'Happy' is not a lower-case word such as",
    ),
    "sex": (change("female", "w"), "line 2: sex 'w' is not one of female, male, unknown"),
    "two sexes": (change("female", "male"), r"more than one sex for anna \(female, male\)"),
    "one class": (TABLE.replace("sad", "happy").replace("worried", "happy"), "all recordings are"),
    "no sound": (
        TABLE + "notes.txt,bert,sad,\n",
        r"1 recording cannot be used: notes\.txt",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_wrong_tables(table, data, text, message):
    if text is None:
        table.unlink()
    else:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorpusError, match=message):
        import_table(table, "mine", data)
    assert not (data / "mine").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (change("happy", "hapy"), "anna/1.wav is hapy, 1 utterances of happy, expected 2"),
        (change(",anna", ",ana"), "anna/1.wav is of ana"),
        (TABLE.replace(",anna,", ",bert,"), "speaker anna"),
    ],
)
def test_a_label_that_changed_is_named(table, data, text, message):
    record = import_table(table, "mine", data)
    (data / "mine/labels.csv").write_text(text)
    with pytest.raises(CorpusError, match=f"which is fixed: .*{message}"):
        manifest.build(record, data / "mine")


def test_pointers(table, data):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    laid_out({"anna/1.wav": pointer}, table.parent)
    with pytest.raises(CorpusError, match=r"Git LFS pointers .*: anna/1\.wav"):
        import_table(table, "mine", data)


@pytest.mark.parametrize("name", ["Mine", "my corpus", "../x", "", "1x"])
def test_names(table, data, name):
    with pytest.raises(CorpusError, match="invalid corpus name"):
        import_table(table, name, data)


def test_a_recipe_keeps_its_name(table, data):
    with pytest.raises(CorpusError, match="'emovo' is the name of a recipe"):
        import_table(table, "emovo", data)


@pytest.mark.parametrize("harm", ["{", "{}", "[]", None])
def test_damaged_contract(table, data, harm):
    import_table(table, "mine", data)
    contract = data / "mine" / "corpus.json"
    if harm is None:
        contract.unlink()
        message = "`timnet acquire mine --csv"
    else:
        contract.write_text(harm)
        message = "not a contract"
    with pytest.raises(CorpusError, match=message):
        custom.load(data / "mine")


def test_contract_is_plain(table, data):
    import_table(table, "mine", data)
    content = json.loads((data / "mine" / "corpus.json").read_text())
    assert content["counts"] == {"happy": 2, "sad": 2, "worried": 1}
    assert content["seconds"] == [0.5, 0.9]


# links in data/, which DVC does not follow


def test_a_corpus_behind_a_link_is_refused_and_its_originals_stay(table, data):
    data.mkdir(parents=True)
    before = tree(table.parent)
    (data / "mine").symlink_to(table.parent)
    for given in (data / "mine" / "table.csv", table):
        with pytest.raises(CorpusError, match=r"data/mine \(leads to a folder\)"):
            import_table(given, "mine", data)
    assert tree(table.parent) == before


def test_data_that_is_a_link_is_refused(table, data):
    data.parent.mkdir()
    data.symlink_to(table.parent.parent)
    before = tree(table.parent)
    with pytest.raises(CorpusError, match=r"project/data \(leads to a folder\)"):
        import_table(data / "mine" / "table.csv", "mine", data)
    assert tree(table.parent) == before


def test_links_within_a_corpus(table, data):
    folder = laid_out({k: v for k, v in SOUNDS.items() if "anna" not in k}, data / "mine")
    (folder / "t.csv").write_text(TABLE)
    (folder / "anna").symlink_to(table.parent / "anna")
    with pytest.raises(CorpusError, match=r"mine/anna \(leads to a folder\)"):
        import_table(folder / "t.csv", "mine", data)
    (folder / "anna").unlink()
    (folder / "anna").mkdir()
    (folder / "anna/1.wav").symlink_to(table.parent / "anna/1.wav")
    (folder / "anna/2.wav").symlink_to(table.parent / "nowhere.wav")
    with pytest.raises(CorpusError, match=r"anna/2\.wav; a link that leads nowhere"):
        import_table(folder / "t.csv", "mine", data)
    (folder / "anna/2.wav").unlink()
    (folder / "anna/2.wav").symlink_to(table.parent / "anna/2.wav")
    (table.parent / "original.csv").write_text("not to be written to")
    (folder / "labels.csv").symlink_to(table.parent / "original.csv")
    import_table(folder / "t.csv", "mine", data)  # files behind links are added by DVC
    assert (table.parent / "original.csv").read_text() == "not to be written to"


def test_litter_and_upper_case_endings(table, data):
    folder = laid_out(
        {**SOUNDS, "anna/._1.wav": b"x", "Thumbs.db": b"x", "__MACOSX/x.wav": b"x"}, data / "mine"
    )
    (folder / "labels.csv").write_text(TABLE)
    import_table(folder / "labels.csv", "mine", data)
    (folder / "x.WAV").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"not in labels.csv: x\.WAV"):
        custom.read(folder)
    table.write_text(TABLE + "anna/._1.wav,anna,sad,female\n")
    (table.parent / "anna/._1.wav").write_bytes(SOUNDS["anna/1.wav"])
    with pytest.raises(
        CorpusError, match=r"line 7: path 'anna/\._1\.wav' is of what file managers"
    ):
        import_table(table, "other", data)


def test_a_name_in_another_normal_form_is_told(table, data):
    (table.parent / "jose\u0301.wav").write_bytes(SOUNDS["anna/1.wav"])
    table.write_text(TABLE.replace("anna/1.wav", "jos\u00e9.wav"))
    with pytest.raises(CorpusError, match=r"line 2: no file .*normal form \(NFD, here NFC\)"):
        import_table(table, "mine", data)


def test_language_and_licence_are_kept_and_may_come_later(table, data):
    assert import_table(table, "mine", data).language == "unknown"
    record = import_table(table, "mine", data, language=" Italian ", licence="CC BY-NC-SA 4.0")
    assert (record.language, record.licence) == ("Italian", "CC BY-NC-SA 4.0")
    assert import_table(table, "mine", data) == record
    assert custom.load(data / "mine") == record
    for words in ({"language": " "}, {"licence": "a\nb"}):
        with pytest.raises(ParameterError, match=f"--{next(iter(words))}"):
            import_table(table, "mine", data, **words)


def test_a_length_that_no_header_tells(table, data):
    """What is taken in is what features can be made from."""
    content = bytearray(SOUNDS["anna/1.wav"])
    content[4:8] = content[40:44] = bytes(4)
    (table.parent / "anna/1.wav").write_bytes(content)
    record = import_table(table, "mine", data)
    assert record.seconds == (0.5, 0.9)
    rows = manifest.build(record, data / "mine").to_pylist()
    assert {row["samples"] for row in rows if row["utterance"] == "anna-1"} == {4000}
