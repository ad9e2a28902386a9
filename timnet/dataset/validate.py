"""The contract of a corpus, checked on its manifest before any feature is computed.

The contract is a Great Expectations suite built from the `Corpus` record. It gives a summary
without times, run ids or paths of the machine: the same manifest gives the same JSON. People read
it in the report; no Data Docs are built, since their pages need a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from timnet.corpora.corpus import Corpus, natural_key
from timnet.errors import CorpusError, listing

# Importing Great Expectations takes seconds, so the functions that need it do it.
if TYPE_CHECKING:
    import pandas as pd

# Check -> its severity ("error" stops the pipeline) and how its failure reads.
CHECKS = {
    "utterances": ("error", "{observed} utterances; expected {expected}"),
    "unique ids": ("error", "several files for one id: {offenders}"),
    "all classes": ("error", "missing classes: {offenders}; expected {expected}"),
    "class counts": ("error", "utterances per class: {offenders}"),
    "known emotions": ("error", "unknown emotions: {offenders}; expected {expected}"),
    "all speakers": ("error", "missing speakers: {offenders}; expected {expected}"),
    "known speakers": ("error", "unknown speakers: {offenders}; expected {expected}"),
    "sample rates": ("warning", "sample rates in Hz: {offenders}; expected {expected}"),
    "channels": ("error", "channels: {offenders}; expected {expected}"),
    "documented channels": ("warning", "documented channels: {offenders}; expected {expected}"),
    "seconds": (
        "error",
        "durations in s: {offenders}; expected {expected[min]} to {expected[max]}",
    ),
    "unique content": ("error", "identical content: {offenders}"),
    "documented copies": ("warning", "documented identical content: {offenders}"),
    "originals": (
        "warning",
        "{observed} of {expected} recordings are the originals; "
        "altered, or with other headers: {offenders}",
    ),
}


def validate(corpus: Corpus, manifest: pa.Table) -> dict[str, Any]:
    """Check `manifest` (schema `timnet.schemas.MANIFEST`) against the contract of `corpus`.

    A broken contract is reported, not raised: see `refuse`.

    Returns:
        corpus, utterances, speakers: id and numbers found.
        passed: no check of severity "error" failed.
        checks: each with check (its name), severity, passed, expected, observed (sample rates
            in Hz) and, if it failed, a message naming the offenders.
        quirks: each documented fault (quirk), the utterances here that it names (utterances)
            and those of them whose channels or content are unusual in this manifest (seen).
    """
    frame = _frame(corpus, manifest)
    contract, observed = _contract(corpus), _observed(corpus, frame)
    failed = _run(corpus.id, contract, frame)
    checks = []
    for name in contract:
        severity, message = CHECKS[name]
        expected, found = contract[name][0], observed[name]
        check = {"check": name, "severity": severity, "passed": name not in failed}
        check |= {"expected": expected, "observed": found}
        if name in failed:
            check["message"] = message.format(
                expected=listing(expected, 10) if isinstance(expected, list) else expected,
                observed=found,
                offenders=_offenders(expected, found, failed[name]),
            )
        checks.append(check)
    if corpus.tampered:
        mark = corpus.tampered(frame["sample_rate"].tolist(), frame["samples"].tolist())
        check = {"check": "original recordings", "severity": "error", "passed": mark is None}
        checks.append(check | ({"message": mark} if mark else {}))
    return {
        "corpus": corpus.id,
        "utterances": len(frame),
        "speakers": frame["speaker"].nunique(),
        "passed": all(check["passed"] or check["severity"] == "warning" for check in checks),
        "checks": checks,
        "quirks": _quirks(corpus, frame),
    }


def require_passed(summary: dict[str, Any]) -> None:
    """Stop at a corpus that breaks its contract; warnings alone do not stop it.

    Raises:
        CorpusError: checks of severity "error" failed; names every one of them.
    """
    broken = [
        f"  - {check['message']}\n"
        for check in summary["checks"]
        if check["severity"] == "error" and not check["passed"]
    ]
    if broken:
        raise CorpusError(
            f"corpus {summary['corpus']} is not as described:\n{''.join(broken)}Restore the "
            "original recordings and remove files that do not belong to the corpus, then run `dvc "
            "repro` again. A custom corpus with other recordings needs another name."
        )


def _frame(corpus: Corpus, manifest: pa.Table) -> pd.DataFrame:
    """The manifest with columns more: seconds, what the quirks excuse, and what is original."""
    frame = manifest.to_pandas()
    frame["seconds"] = (frame["samples"] / frame["sample_rate"]).round(3)
    # A quirk is one of channels, and excuses others, only if all that it names have them.
    odd = set(frame["utterance"][_odd_channels(frame)])
    of_channels = [here for here in _quirks_here(corpus, frame).values() if here <= odd]
    frame["documented"] = frame["utterance"].isin(set().union(*of_channels))
    # Equal files are excused only if a quirk lists exactly them: one copy more is a leak.
    listed = {frozenset(utterances) for utterances in corpus.quirks.values()}
    copies = {sha256: frozenset(ids) for sha256, ids in frame.groupby("sha256")["utterance"]}
    excused = {sha256 for sha256, ids in copies.items() if ids in listed}
    frame["listed_copy"] = frame["sha256"].isin(excused)
    known = corpus.originals
    frame["original"] = frame["sha256"] == frame["utterance"].map(known)
    return frame


def _contract(corpus: Corpus) -> dict[str, tuple]:
    """Check -> what is expected, for the summary, and the expectations that decide it.

    Whether recordings are the originals is checked where their hashes are known.
    """
    import great_expectations.expectations as gx
    from great_expectations.expectations.row_conditions import Column

    rows, unique = gx.ExpectTableRowCountToEqual, gx.ExpectColumnValuesToBeUnique
    among, has_all = gx.ExpectColumnValuesToBeInSet, gx.ExpectColumnDistinctValuesToContainSet
    between = gx.ExpectColumnValuesToBeBetween

    total, labels, speakers = corpus.utterances, list(corpus.labels), _sorted(corpus.speakers)
    counts = {label: corpus.counts[label] for label in labels}
    classes = [
        rows(
            value=count,
            row_condition=Column("emotion") == label,
        )
        for label, count in counts.items()
    ]
    rates, channels = sorted(corpus.sample_rates), sorted(corpus.channels)
    low, high = corpus.seconds
    plain, documented = (Column("documented") == flag for flag in (False, True))
    other, listed = (Column("listed_copy") == flag for flag in (False, True))
    known = len(corpus.originals)
    originals = {"originals": (known, among(column="original", value_set=[True]))} if known else {}
    return {
        "utterances": (total, rows(value=total)),
        "unique ids": (total, unique(column="utterance")),
        "all classes": (labels, has_all(column="emotion", value_set=labels)),
        "class counts": (counts, *classes),
        "known emotions": (labels, among(column="emotion", value_set=labels)),
        "all speakers": (speakers, has_all(column="speaker", value_set=speakers)),
        "known speakers": (speakers, among(column="speaker", value_set=speakers)),
        "sample rates": (rates, among(column="sample_rate", value_set=rates)),
        "channels": (
            channels,
            among(column="channels", value_set=channels, row_condition=plain),
        ),
        "documented channels": (
            channels,
            among(column="channels", value_set=channels, row_condition=documented),
        ),
        "seconds": (
            {"min": low, "max": high},
            between(column="seconds", min_value=low, max_value=high),
        ),
        "unique content": (0, unique(column="sha256", row_condition=other)),
        "documented copies": (0, unique(column="sha256", row_condition=listed)),
        **originals,
    }


def _observed(corpus: Corpus, frame: pd.DataFrame) -> dict[str, Any]:
    """Check -> what the manifest has in place of what is expected."""
    labels, speakers = _sorted(frame["emotion"]), _sorted(frame["speaker"])
    copies = frame["sha256"].duplicated(keep=False)
    return {
        "utterances": len(frame),
        "unique ids": frame["utterance"].nunique(),
        "all classes": labels,
        "class counts": {label: int((frame["emotion"] == label).sum()) for label in corpus.labels},
        "known emotions": labels,
        "all speakers": speakers,
        "known speakers": speakers,
        "sample rates": sorted(set(frame["sample_rate"])),
        "channels": sorted(set(frame["channels"][~frame["documented"]])),
        "documented channels": sorted(set(frame["channels"][frame["documented"]])),
        "seconds": {"min": float(frame["seconds"].min()), "max": float(frame["seconds"].max())},
        "unique content": int((copies & ~frame["listed_copy"]).sum()),
        "documented copies": int((copies & frame["listed_copy"]).sum()),
        "originals": int(frame["original"].sum()),
    }


def _run(name: str, contract: dict[str, tuple], frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Run the suite; failed check -> the result that failed it."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.metadata_types import FailureSeverity

    suite = []
    for check, (_, *expectations) in contract.items():
        critical = CHECKS[check][0] == "error"
        for expectation in expectations:
            expectation.severity = FailureSeverity("critical" if critical else "warning")
            expectation.meta = {"check": check}
        suite += expectations
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole")
    stored = context.suites.add(gx.ExpectationSuite(name, expectations=suite))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=stored)
    )
    outcome = definition.run(
        batch_parameters={"dataframe": frame},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["utterance", "path"],
            "return_unexpected_index_query": False,
        },
    )
    results: list[Any] = [result.to_json_dict() for result in outcome.results if not result.success]
    return {result["expectation_config"]["meta"]["check"]: result for result in results}


def _offenders(expected: Any, observed: Any, result: dict[str, Any]) -> str:
    """What a failed expectation found, in words: wrong values and what has them."""
    column = result["expectation_config"]["kwargs"].get("column")
    if column is None:  # rows were counted, of the corpus or of each class
        counts = expected if isinstance(expected, dict) else {}
        return ", ".join(
            f"{label} {observed[label]} (expected {count})"
            for label, count in counts.items()
            if observed[label] != count
        )
    if "partial_missing_list" in result["result"]:  # it is cut, and in no order
        return listing([name for name in expected if name not in observed], 24)
    # Where ids are not unique, or the file is to be listened to, its path says more.
    name = "path" if column in ("utterance", "seconds", "original") else "utterance"
    found: dict[str, list[str]] = {}
    for row in result["result"]["unexpected_index_list"]:
        found.setdefault(row[column], []).append(row[name])
    if column == "original":
        return listing([path for paths in found.values() for path in paths], 10)
    if column == "sha256":
        return listing([f"({listing(names)})" for names in found.values()])
    return listing([f"{value} ({listing(names)})" for value, names in found.items()])


def _quirks(corpus: Corpus, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Documented faults of utterances in the manifest."""
    odd = frame["sha256"].duplicated(keep=False) | _odd_channels(frame)
    seen = set(frame["utterance"][odd])
    return [
        {"quirk": quirk, "utterances": _sorted(here), "seen": _sorted(here & seen)}
        for quirk, here in _quirks_here(corpus, frame).items()
    ]


def _quirks_here(corpus: Corpus, frame: pd.DataFrame) -> dict[str, set[str]]:
    """Documented faults, each with the utterances in the manifest that have it; none without."""
    present = set(frame["utterance"])
    here = {quirk: present.intersection(names) for quirk, names in corpus.quirks.items()}
    return {quirk: names for quirk, names in here.items() if names}


def _odd_channels(frame: pd.DataFrame) -> pd.Series:
    """Whether a recording has another number of channels than most, a row each."""
    return ~frame["channels"].isin(frame["channels"].mode()[:1])


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=natural_key)
