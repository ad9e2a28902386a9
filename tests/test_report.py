"""The report as a reader has it: in a browser."""

from __future__ import annotations

import csv
import html
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from browser import chromium
from selenium.webdriver.common.by import By
from test_tables import cross_runs, of_means, of_table, recipes, unseen

from timnet.evaluation.protocols import CROSS, SPEAKER
from timnet.paper.runs import CROSS_CORPORA
from timnet.reporting import report, tables
from timnet.reporting.scored import ScoredRun


def opened(driver, reproduced: Path):
    driver.get((reproduced / "results/report.html").as_uri())
    return driver


def cells(driver, table: str) -> list[list[str]]:
    """What stands in the rows of a table, or of several."""
    script = """
    const rows = [...document.querySelectorAll(`${arguments[0]} tbody tr`)];
    return rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
    """
    return driver.execute_script(script, table)


@pytest.mark.slow
def test_the_report_opens_alone_and_its_tables_hold_and_sort(reproduced: Path) -> None:
    with chromium() as driver:
        opened(driver, reproduced)
        assert driver.get_log("browser") == []
        assert driver.title == "Speech emotion recognition: demo"

        for path in (reproduced / "results/tables").glob("*.csv"):
            _, *rows = csv.reader(path.open())
            assert sorted(cells(driver, f"#{path.stem}")) == sorted(rows)

        # what is in the paper alone is folded, and left out where nothing stands beside it
        assert not driver.find_elements(By.CSS_SELECTOR, "#table-1, #table-2, #table-s3, #table-s4")
        assert {row[0] for row in cells(driver, "#table-s1 > .wide")} == {"demo"}
        folded = driver.find_element(By.CSS_SELECTOR, "#table-s1 details")
        assert "Not in this commit" in folded.text
        assert "casia, emodb, emovo, iemocap, ravdess, savee" in folded.text
        folded.find_element(By.TAG_NAME, "summary").click()
        shown = [row[4] for row in cells(driver, "#table-s1 details")]
        numbers = sorted(float(text) for text in shown if re.match(r"[+-]?\d", text))
        for expected in (numbers, numbers[::-1]):
            folded.find_element(By.CSS_SELECTOR, "th:nth-child(5) button").click()
            now = [row[4] for row in cells(driver, "#table-s1 details")[: len(numbers)]]
            assert [float(text) for text in now] == expected  # what is no number stands last

        (card,) = driver.find_elements(By.CLASS_NAME, "card")  # one per corpus
        for word in ("demo", "chance 25.00 %", "best-epoch", "last-epoch", "speaker-independent"):
            assert word in card.text
        cell = driver.find_element(By.CSS_SELECTOR, "#single-corpus td[data-run]")
        driver.execute_script("arguments[0].click()", cell)
        told = driver.find_element(By.ID, "told")
        assert told.is_displayed()
        for word in ("commit ", "recordings of demo: SHA-256 ", "features: revision ", "device: "):
            assert word in told.text
        assert "demo: no hashes of its original recordings are known" in told.text

        hidden = driver.find_elements(By.CSS_SELECTOR, "details.run img")
        assert hidden and not any(image.is_displayed() for image in hidden)
        driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
        images = driver.find_elements(By.CSS_SELECTOR, "figure img")
        assert (
            len(images) == 1 + 6 + 5
        )  # overview, figures of the random run and of the speaker run
        widths = """
        const done = arguments[0];
        for (const image of document.images) image.loading = "eager";
        Promise.all([...document.images].map((image) => image.decode())).then(() =>
          done([...document.images].map((image) => image.naturalWidth)));
        """
        assert all(driver.execute_async_script(widths))


def custom(run: ScoredRun, corpus: str) -> ScoredRun:
    return replace(run, record=run.record | {"trained_on": corpus, "tested_on": corpus})


def test_the_page_is_a_reproduction_only_with_a_corpus_of_the_paper() -> None:
    mine = custom(unseen("emovo", "paper", 28.0), "mine")
    yours = custom(unseen("emovo", "paper", 28.0), "yours")
    assert report.title([mine, yours]) == "Speech emotion recognition: mine, yours"
    across = ScoredRun("x", mine.record | {"tested_on": ["emodb"]}, {})
    assert report.title([mine, across]) == "Speech emotion recognition: mine, emodb"
    assert report.title([mine, *recipes()]) == "TIM-Net, reproduced"


def lines(card: dict, protocol: str) -> list[tuple[str, str, str]]:
    (shown,) = (each for each in card["protocols"] if each["protocol"] == protocol)
    return [(score["uar"], score["method"], score["range"]) for score in shown["scores"]]


def test_a_card_has_the_svms_beside_the_networks() -> None:
    runs = of_table("table-1", "emovo", best_epoch=(92.0, 93.0), last_epoch=(86.0, 86.0))
    (svm,) = of_table("table-1", "emovo", last_epoch=(82.0, 82.0))
    svm = replace(svm, name="emovo-svm-random", record=svm.record | {"baseline": "svm"})
    emovo, savee = report.cards(report.headlined([svm, *recipes()[::-1], *runs]))
    assert (emovo["corpus"], savee["corpus"], emovo["chance"]) == ("emovo", "savee", "25.00")
    names = [shown["protocol"] for shown in emovo["protocols"]]
    assert names == ["best-epoch", "last-epoch", "speaker-independent"]  # to stricter ones
    assert lines(emovo, "last-epoch") == [
        ("86.00", "TIM-Net", "84.00 to 88.00"),
        ("82.00", "SVM", "80.00 to 84.00"),
    ]
    assert lines(emovo, SPEAKER) == [
        ("28.00", "TIM-Net", "26.00 to 30.00"),
        ("40.00", "recipe best", "38.00 to 42.00"),
        ("38.00", "SVM, speaker-normalised", "36.00 to 40.00"),
        ("27.00", "SVM", "25.00 to 29.00"),
    ]
    told = emovo["protocols"][0]["scores"][0]["told"]
    assert told.startswith("emovo-random: random folds") and told.endswith("; WAR 93.00 %")


def test_a_card_has_the_mean_over_the_corpora_that_were_tested() -> None:
    ours = []
    for kind, values in (("paper", (30.0, 40.0)), ("svm", (20.0, 50.0))):
        for tested, uar in zip(("savee", "emodb"), values, strict=True):
            (run,) = cross_runs(["casia", tested])[:1]
            run.scores[CROSS]["uar"]["value"] = uar
            run.record.update({"baseline": "svm"} if kind == "svm" else {})
            ours.append(replace(run, name=f"casia-{kind}-{tested}"))
    (card,) = report.cards(report.headlined(ours))
    (shown,) = card["protocols"]
    assert shown["about"] == "mean, lowest to highest; on emodb, savee; chance 25.00 %"
    assert lines(card, CROSS) == [
        ("35.00", "TIM-Net", "30.00 to 40.00"),
        ("35.00", "SVM", "20.00 to 50.00"),
    ]
    (alone,) = report.cards(report.headlined(ours[:1]))
    assert alone["protocols"][0]["about"] == "95\u00a0%\u00a0CI; on savee; chance 25.00 %"


def test_without_networks_cards_have_all_that_there_is() -> None:
    (svm,) = of_table("table-1", "emovo", last_epoch=(82.0, 82.0))
    svm.record["baseline"] = "svm"
    (card,) = report.cards(report.headlined([svm]))
    assert lines(card, "last-epoch") == [("82.00", "SVM", "80.00 to 84.00")]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of made-up scores, with tables as wide as they get."""
    folder = tmp_path_factory.mktemp("report")
    runs = [*recipes(), *cross_runs(CROSS_CORPORA), *cross_runs(CROSS_CORPORA, recipe="best")]
    runs += of_table("table-1", "emovo", best_epoch=(92.0, 92.0), last_epoch=(86.0, 86.0))
    for run in runs:
        features = run.record["features"] | {"revision": 1, "source": "0" * 64}
        run.record.update(features=features, device_name="cpu", versions={})
    overview = folder / "overview.svg"
    overview.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"/>')
    drawn = {run.name: folder for run in runs}
    overview = overview.rename(folder / "overview")  # no figure of a run
    page = report.page(tables.all_tables(runs, {}, {}, of_means), overview, runs, drawn, {}, {})
    (folder / "report.html").write_text(page)
    return folder / "report.html"


HIDDEN = """
return [...document.querySelectorAll("section > .wide > .scroll")]
  .filter((scroll) => scroll.scrollWidth > scroll.clientWidth)
  .map((scroll) => scroll.closest("section").id);
"""
OFF_ITS_ROW = """
const scroll = document.querySelector("#strictness .scroll");
scroll.scrollLeft = 60;
return [...scroll.querySelectorAll("tr")].filter((row) => {
  const [first, second] = [...row.cells].map((cell) => cell.getBoundingClientRect());
  const line = (cell) => getComputedStyle(cell).borderBottom;
  const left = scroll.getBoundingClientRect().left + scroll.clientLeft;
  const under = document.elementFromPoint(first.left + 8, first.top + first.height / 2);
  return first.top !== second.top || first.height !== second.height || first.left !== left
    || line(row.cells[0]) !== line(row.cells[1]) || under.closest("th, td") !== row.cells[0];
}).length;
"""


def sized(driver, width: int) -> None:
    device = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)


def test_tables_take_the_room_of_the_window_and_the_page_never_scrolls_sideways(
    wide: Path,
) -> None:
    with chromium() as driver:
        driver.get(wide.as_uri())
        driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
        for width in (320, 390, 768, 1000, 1200, 1300, 1920, 2560):
            sized(driver, width)
            sizes = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
            scrolled, seen = driver.execute_script(sizes)
            assert scrolled == seen, width
            if width >= 1200:
                assert driver.execute_script(HIDDEN) == [], width
        table = "return document.querySelector('#table-s4 .scroll').offsetWidth"
        assert driver.execute_script(table) > 1300  # wider than the text
        text = "return document.querySelector('.notes').getBoundingClientRect().width"
        assert driver.execute_script(text) < 900


def test_the_first_column_stays_on_its_row(wide: Path) -> None:
    with chromium() as driver:
        sized(driver, 390)
        driver.get(wide.as_uri())
        collapsed = "return getComputedStyle(document.querySelector('table')).borderCollapse"
        assert driver.execute_script(collapsed) == "separate"  # else lines stay behind
        driver.execute_script("document.querySelector('#strictness').scrollIntoView()")
        assert driver.execute_script(OFF_ITS_ROW) == 0


def test_a_picture_is_the_address_of_itself() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg">\n<text style="font: 8px \'A\'">50 % #1'
    svg += "\n\"it's\" &lt;b&gt; &amp; é ±</text>\n<use href='#a'/></svg>\n"
    (page,) = re.findall(r'src="([^"]*)"', f'<img src="{report.address(svg)}">')
    kind, _, content = html.unescape(page).partition(",")
    assert kind == "data:image/svg+xml"
    assert not re.search(r"[#\n\"]", content)
    told = ElementTree.canonicalize(unquote(content))
    assert told.replace("&quot;", "'") == ElementTree.canonicalize(svg.strip().replace("\n", " "))


@pytest.mark.slow
def test_the_report_fits_a_phone_and_needs_no_network(reproduced: Path) -> None:
    text = (reproduced / "results/report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text)
    with chromium() as driver:
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        opened(driver, reproduced)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
