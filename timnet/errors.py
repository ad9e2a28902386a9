"""What can go wrong through a user's doing, under one root.

Every message says what is wrong, where, what was expected and what to do; the command line
prints it without a traceback and exits with 1.
"""

import difflib
from collections.abc import Iterable


class TimnetError(Exception):
    """Root of all errors that a user can fix."""


class ParameterError(TimnetError, ValueError):
    """A value in params.yaml or on the command line is missing, misspelt or out of range."""


class CorpusError(TimnetError, ValueError):
    """A corpus is missing, incomplete or not what its recipe describes."""


class AudioError(TimnetError, ValueError):
    """Recordings that cannot be read as sound, or hold no usable signal."""


class ArtifactError(TimnetError, ValueError):
    """A file of the pipeline is missing, damaged or was made with other settings."""


class LicenceError(TimnetError):
    """Recordings, or what was made of them, would go where their terms do not let them."""


class TrainingError(TimnetError, RuntimeError):
    """Training cannot start or go on."""


def listing(names: Iterable[object], limit: int = 5) -> str:
    """`a, b, c and 7 more`: the first names, sorted as given, and how many are left out."""
    told = [str(name) for name in names]
    shown = ", ".join(told[:limit])
    return f"{shown} and {len(told) - limit} more" if len(told) > limit else shown


def counted(number: int, noun: str) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'emovo'?` of a name that is near to a known one, otherwise nothing."""
    near = difflib.get_close_matches(name, list(known), 2)
    ratios = [difflib.SequenceMatcher(None, each, name).ratio() for each in near]
    as_near = [repr(each) for each, ratio in zip(near, ratios, strict=True) if ratio == ratios[0]]
    return f" Did you mean {' or '.join(as_near)}?" if near else ""
