"""What the paper says: its results, and the runs that each of its tables needs."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files


@lru_cache
def paper() -> dict:
    """paper.json: scores as printed, percent, pairs of [UAR, WAR]; the training's settings."""
    return json.loads(files("timnet.paper").joinpath("paper.json").read_text(encoding="utf-8"))
