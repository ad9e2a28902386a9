"""What is said of settings that cannot be: in the words of params.yaml, not of a library."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

from timnet.errors import ParameterError
from timnet.project import params

CASES = {
    "trained_on: dmo": "runs.demo-random: unknown corpus 'dmo' in corpora. Did you mean 'demo'?",
    "trained_on: casia": "runs.demo-random: unknown corpus 'casia' in corpora. Add it there.",
    "seeds: []": "runs.demo-random.seeds: expected a list of 1 or more, got []",
    "seeds: 1": "runs.demo-random.seeds: expected a list, such as [1, 2], got 1",
    "seeds: [-1]": "runs.demo-random.seeds.0: expected at least 0, got -1",
    "folds: random": "runs.demo-random.folds: expected settings, each with its name, such as ",
    "precision: 16": "runs.demo-random.precision: expected 'fp32' or 'bf16', got 16",
    "signal_length: long": "runs.demo-random.signal_length: expected a whole number, got 'long'",
}


@pytest.mark.parametrize("setting", CASES)
def test_settings_that_cannot_be(tmp_path: Path, setting: str) -> None:
    path, name = tmp_path / "params.yaml", setting.partition(":")[0]
    demo = (ROOT / "timnet" / "demo.yaml").read_text()
    path.write_text(re.sub(rf"^    {name}:.*", f"    {setting}", demo, count=1, flags=re.MULTILINE))
    with pytest.raises(ParameterError) as caught:
        params.read(path)
    assert str(caught.value).startswith(f"{path}: correct these settings:\n")
    assert CASES[setting] in str(caught.value)
