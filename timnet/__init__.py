"""TIM-Net speech emotion recognition: from recordings to the paper's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from timnet.models.model import Model

__version__ = "0.1.0"


def load_model(name: str | Path | None = None) -> Model:
    """A trained model, ready to predict.

    Args:
        name: of a model in `build/models/`, or its file; else the one that comes with the package.

    Raises:
        ArtifactError: no such model, or a file that is none.
    """
    from timnet.models import model

    return model.load(model.in_the_box() if name is None else model.find(name))
