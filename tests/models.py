"""A small model with drawn weights, for tests that need no corpus."""

from __future__ import annotations

import numpy as np
import torch

from timnet.dataset import features
from timnet.dataset.features import FeatureSettings
from timnet.models import model, out_of_domain
from timnet.models.card import Calibration, Card, FeatureRecord, Figures, Source
from timnet.models.predict import Model
from timnet.training.network import TIMNet

LABELS = ("angry", "happy", "sad")
SETTINGS = FeatureSettings(22050)  # a window of a second
RATE = 16000


def voice(seconds: float, pitch: float = 150.0, rate: int = RATE) -> np.ndarray:
    """Harmonics in the rhythm of syllables, and a little noise; -24 dB or so."""
    time = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 12))
    noise = np.random.default_rng(int(pitch)).normal(size=len(time))
    return (0.1 * tones * np.sin(2 * np.pi * 2 * time) ** 2 + 0.002 * noise).astype(np.float32)


def small_model(networks: int = 3, variant: str = "tim-net", **changes: object) -> Model:
    """Three emotions, windows of a second, trained on voices of 0.8 to 1.5 s at 16 kHz."""
    stack = TIMNet(networks, len(LABELS), 3, variant=variant)
    for row in range(networks):
        stack.initialise(row, torch.Generator().manual_seed(row))
    drawn = torch.Generator().manual_seed(99)
    for name in ("running_mean", "bias", "beta"):
        value = getattr(stack, name).data[..., :39]
        value.copy_(torch.randn(value.shape, generator=drawn) / 3)
    stack.running_variance[..., :39] += torch.rand(
        stack.running_variance[..., :39].shape, generator=drawn
    )
    stack.input_kernel.data /= 100  # MFCC are large
    measured, speakers = [], []
    random = np.random.default_rng(0)
    for n in range(60):
        seconds = 1.5 if n == 0 else random.uniform(0.8, 1.5)
        sound = voice(seconds, random.uniform(100, 220)) * random.uniform(0.5, 1.3)
        mfcc = features.mfcc(sound, RATE, SETTINGS)
        measured.append(out_of_domain.measure(sound, RATE, mfcc, SETTINGS))
        speakers.append(f"s{n % 4}")
    reference = out_of_domain.reference(measured, speakers)
    card = Card(
        name="small",
        networks="folds",
        labels=LABELS,
        variant=variant,
        data=Source(
            corpus="voices",
            title="Voices",
            language="none",
            licence="CC BY-NC-SA 4.0",
            citation="Nobody, 2026",
            source="http://127.0.0.1/",
            utterances=60,
            speakers=4,
        ),
        features=FeatureRecord(
            revision=features.REVISION,
            settings=SETTINGS,
            frames=SETTINGS.frames,
            libraries={},
            source="0",
        ),
        training={"tabs": 3, "variant": variant},
        seeds=[0],
        run="voices-speaker",
        figures=[
            Figures(
                protocol="speaker-independent",
                meaning="speaker-independent cross-validation, the last epoch",
                utterances=60,
                uar=50.0,
                war=50.0,
                uar_interval=(40.0, 60.0),
                war_interval=(40.0, 60.0),
                uar_by_speaker={"s0": 45.0, "s1": 55.0},
            )
        ],
        calibration=Calibration(temperature=0.7, utterances=60, error_before=0.2, error_after=0.1),
        typical=model.typical(reference),
        commit="0123456789",
        device="none",
        versions={"timnet": "0.1.0"},
    )
    return Model(card.model_copy(update=changes), stack.eval(), reference)
