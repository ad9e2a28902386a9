"""What README says is what is committed: results, pictures, pages; and it stays short."""

from __future__ import annotations

import re
from pathlib import Path

import draw
import pytest
import readme
from conftest import ROOT

from timnet.evaluation.protocols import SPEAKER
from timnet.models import model

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.stem)
def test_its_blocks_are_those_of_the_commit(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert any(f"<!-- {name} -->" in text for name in readme.BLOCKS)
    assert readme.filled(text) == text, "run `make readme`"


def test_a_block_that_is_out_of_date_is_filled_anew() -> None:
    stale = README.replace("<!-- results -->\n", "<!-- results -->\n| old |\n", 1)
    assert readme.filled(stale) == README


def test_what_the_models_in_the_package_score_is_what_their_cards_say() -> None:
    plain, adapted = (model.read_card(p) for p in (model.IN_THE_BOX, model.TO_ENROL_IN_THE_BOX))
    assert adapted.unenrolled is not None
    (with_it,), (without,), (other,) = (
        [f.uar for f in figures if f.protocol == SPEAKER]
        for figures in (adapted.figures, adapted.unenrolled.figures, plain.figures)
    )
    page = " ".join((ROOT / "docs/how-to/predict.md").read_text(encoding="utf-8").split())
    assert f"scores {with_it:.1f} % UAR [" in page
    assert f"and {without:.1f} % with none, where `emodb` scores {other:.1f} % [" in page
    assert f"reaches {with_it:.1f} % [" in README


def test_its_pictures_and_pages_are_there() -> None:
    places = re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\":]+)\"", README)
    named = [first or second for first, second in places]
    assert len(named) > 20
    assert [name for name in named if not (name.startswith("../") or (ROOT / name).exists())] == []


@pytest.mark.parametrize("name", draw.pictures())
def test_a_picture_is_what_the_project_draws(name: str) -> None:
    drawn = (draw.HERE / name).read_text(encoding="utf-8")
    assert drawn == draw.pictures()[name], "run `make pictures`"


def test_it_is_read_in_some_minutes() -> None:
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", README, flags=re.DOTALL)  # tables
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(re.sub(r"\]\([^)]*\)|<[^>]+>", "", text).split()) < 900
    for word, meaning in {
        "UAR": "unweighted average recall",
        "WAR": "weighted average",
        "MFCC": "mel-frequency cepstral coefficients",
    }.items():
        assert meaning in README, word
