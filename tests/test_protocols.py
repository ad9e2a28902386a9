from __future__ import annotations

from timnet.evaluation import protocols


def test_names_and_kinds_are_told_apart() -> None:
    names = [protocol.name for protocol in protocols.PROTOCOLS]
    kinds = [(protocol.folds, protocol.epoch) for protocol in protocols.PROTOCOLS]
    assert len(set(names)) == len(set(kinds)) == len(names)
    assert list(protocols.MEANING) == names


def test_they_stand_from_optimistic_to_strict() -> None:
    names = [each.name for each in protocols.PROTOCOLS if not each.validated]
    assert names == [
        "best-epoch",
        "last-epoch",
        "speaker-independent",
        "sentence-independent",
        "speaker-and-sentence-independent",
        "cross-corpus",
    ]
    assert [each.name for each in protocols.PROTOCOLS if each.optimistic] == ["best-epoch"]


def test_an_epoch_chosen_on_validation_speakers_has_the_protocol_s_folds() -> None:
    for protocol in protocols.PROTOCOLS:
        base = protocols.named(protocol.base)
        assert (base.folds, base.epoch, base.varies) == (protocol.folds, "last", protocol.varies)
    told = {each.name: each.base for each in protocols.PROTOCOLS if each.validated}
    assert told["validated-epoch"] == "last-epoch"
    assert told["speaker-independent-validated"] == "speaker-independent"
    assert len(told) == 4 and "cross-corpus" not in told.values()  # which has no validation part


def test_unseen_speakers_are_what_intervals_draw() -> None:
    varies = {each.name: each.varies for each in protocols.PROTOCOLS if not each.validated}
    assert varies["last-epoch"] == "utterances"
    assert varies["sentence-independent"] == "folds"
    for name in ("speaker-independent", "speaker-and-sentence-independent", "cross-corpus"):
        assert varies[name] == "speakers"
