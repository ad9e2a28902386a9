"""Two methods as one: the mean of the probabilities that they give each emotion."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timnet.errors import ArtifactError
from timnet.evaluation import calibration, score
from timnet.evaluation.protocols import LAST
from timnet.evaluation.results import Result


def together(network: Result, machine: Result) -> Result:
    """What a network and a machine that has no seeds say together, after the last epoch.

    Nothing is fitted: both count alike, and no temperature is applied. Each seed of the network
    is joined with the one machine.

    Raises:
        ArtifactError: the two have other emotions or tested other utterances.
    """
    ours, theirs = (_last(result.predictions) for result in (network, machine))
    place = {name: row for row, name in enumerate(theirs["utterance"].to_pylist())}
    names = ours["utterance"].to_pylist()
    if network.labels != machine.labels or len(place) < len(theirs) or set(names) != set(place):
        raise ArtifactError("two methods that are not of the same emotions and utterances.")
    beside = theirs.take([place[name] for name in names])
    first, second = (
        calibration.probabilities(score.truth_and_logits(table, network.labels)[1], 1.0)
        for table in (ours, beside)
    )
    logits = np.log((first + second) / 2).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    at = ours.schema.get_field_index("logits")
    return Result(network.record, ours.set_column(at, ours.schema.field(at), column))


def _last(predictions: pa.Table) -> pa.Table:
    return predictions.filter(pc.equal(predictions["epoch_kind"], LAST))
