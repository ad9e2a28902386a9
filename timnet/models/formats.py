"""Predictions as text: a table to read, CSV and JSON Lines for programs, line by line."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from timnet.models.predict import Prediction, Segment

WIDEST = 44  # characters of a name in the table


def name(path: Path) -> str:
    """A path as printable text, whatever bytes its name is made of."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in plain(path)
    )


def answer(found: Prediction | Segment, abstain_below: float) -> str | None:
    """The emotion; None where it is less probable than it is to be."""
    return found.emotion if found.probability >= abstain_below else None


def plain(path: Path) -> str:
    """A path as UTF-8, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "replace")


class TableWriter:
    """For a terminal: a line per recording, below it what there is to say of it."""

    def __init__(
        self, labels: tuple[str, ...], paths: list[Path], abstain_below: float = 0.0
    ) -> None:
        self.abstain_below = abstain_below
        self.wide = min(max([len("recording"), *(len(name(path)) for path in paths)]), WIDEST)
        self.label = max(len("emotion"), *map(len, labels))

    def head(self) -> str:
        return (
            f"{'recording':{self.wide}}  {'emotion':{self.label}}     p  "
            f"{'or':{self.label}}     p  votes  length"
        )

    def line(self, path: Path, found: Prediction) -> str:
        shown = name(path)
        if len(shown) > self.wide:
            shown = "…" + shown[1 - self.wide :]
        second = int(np.argsort(found.probabilities)[-2])
        emotion = answer(found, self.abstain_below) or "-"
        lines = [
            f"{shown:{self.wide}}  {emotion:{self.label}}  {found.probability:.2f}  "
            f"{found.labels[second]:{self.label}}  {found.probabilities[second]:.2f}  "
            f"{f'{found.votes}/{found.networks}':>5}  {_length(found)}"
        ]
        if found.out_of_domain:
            lines.append(f"  out of domain: {', '.join(found.out_of_domain)}")
        if len(found.windows) > 1:
            lines += [
                f"  {_clock(part.start)} to {_clock(part.end)}  "
                f"{answer(part, self.abstain_below) or '-':{self.label}}  {part.probability:.2f}"
                for part in found.timeline
            ]
        return "\n".join(lines)


class CsvWriter:
    """A row per recording, with the probability of each emotion; RFC 4180."""

    def __init__(self, labels: tuple[str, ...], abstain_below: float = 0.0) -> None:
        self.labels = labels
        self.abstain_below = abstain_below

    def head(self) -> str:
        return _row(
            ["recording", "seconds", "emotion", *self.labels, "votes", "networks", "out_of_domain"]
        )

    def line(self, path: Path, found: Prediction) -> str:
        probabilities = [f"{value:.4f}" for value in found.probabilities]
        reasons = "; ".join(found.out_of_domain)
        cells = [
            answer(found, self.abstain_below) or "",
            *probabilities,
            found.votes,
            found.networks,
            reasons,
        ]
        return _row([plain(path), f"{found.seconds:.3f}", *cells])


class JsonLinesWriter:
    """One object a line (JSON Lines), with the windows of long sound."""

    def __init__(self, abstain_below: float = 0.0) -> None:
        self.abstain_below = abstain_below

    def head(self) -> None:
        return None

    def line(self, path: Path, found: Prediction) -> str:
        content: dict[str, Any] = {
            "recording": plain(path),
            "seconds": round(found.seconds, 3),
            "emotion": answer(found, self.abstain_below),
            "probabilities": {
                label: round(float(value), 4)
                for label, value in zip(found.labels, found.probabilities, strict=True)
            },
            "votes": found.votes,
            "networks": found.networks,
            "out_of_domain": found.out_of_domain,
            "windows": found.windows.round(3).tolist(),
            "timeline": [
                {
                    "start": round(part.start, 3),
                    "end": round(part.end, 3),
                    "emotion": answer(part, self.abstain_below),
                    "probability": round(part.probability, 4),
                }
                for part in found.timeline
            ],
        }
        return json.dumps(content, ensure_ascii=False)


def _row(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _length(found: Prediction) -> str:
    if len(found.windows) > 1:
        return f"{found.seconds:.0f} s in {len(found.windows)} windows"
    start, end = found.windows[0]
    if end - start < found.seconds - 0.01:
        return f"the middle of {found.seconds:.1f} s"
    return f"{found.seconds:.1f} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
