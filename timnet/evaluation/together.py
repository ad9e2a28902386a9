"""A network and a baseline as one: the mean of the probabilities that they give each emotion."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from timnet.errors import ArtifactError
from timnet.evaluation import calibration, score
from timnet.evaluation.protocols import LAST


def together(network: pa.Table, machine: pa.Table, labels: tuple[str, ...]) -> pa.Table:
    """What a network and a machine that has no seeds say together, after the last epoch.

    Args:
        network: of `schemas.predictions`; each of its seeds is joined with the one machine.
        machine: likewise.
        labels: of both.

    Raises:
        ArtifactError: the two tested other utterances.
    """
    ours, theirs = (each.filter(pc.equal(each["epoch_kind"], LAST)) for each in (network, machine))
    place = {name: row for row, name in enumerate(theirs["utterance"].to_pylist())}
    names = ours["utterance"].to_pylist()
    if len(place) < len(theirs) or set(names) != set(place):
        raise ArtifactError("a network and a baseline that tested other utterances: not joined.")
    beside = theirs.take([place[name] for name in names])
    logits = calibration.joined(
        *(score.truth_and_logits(table, labels)[1] for table in (ours, beside))
    )
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    at = ours.schema.get_field_index("logits")
    return ours.set_column(at, ours.schema.field(at), column)
