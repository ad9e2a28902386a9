"""The paper's figures and settings, as data."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files


@lru_cache
def paper() -> dict:
    """paper.json: figures as printed, percent, pairs of [UAR, WAR]; the training's settings."""
    return json.loads(files("timnet").joinpath("paper.json").read_text(encoding="utf-8"))
