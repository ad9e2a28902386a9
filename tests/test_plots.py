from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import chromium
from conftest import edit, run
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


@pytest.mark.slow
def test_plots_of_two_revisions_show_without_a_network(workspace: Path) -> None:
    edit(workspace / "params.yaml", "epochs: 1", "epochs: 2")
    run(workspace, "dvc", "repro", "score")
    assert run(workspace, "git", "status", "--porcelain", ".dvc").stdout == ""
    run(workspace, "dvc", "plots", "diff", "HEAD", "--out", "plots")
    page = workspace / "plots" / "index.html"
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=", page.read_text())
    with chromium() as driver:
        driver.get(page.as_uri())
        drawn = (By.CSS_SELECTOR, ".vega-embed canvas, .vega-embed svg.marks")
        WebDriverWait(driver, 20).until(lambda d: len(d.find_elements(*drawn)) == 4)
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_offline_plots_need_a_dvc_repository(tmp_path: Path) -> None:
    result = run(tmp_path, "timnet", "offline-plots", check=False)
    assert f"no DVC repository in {tmp_path}; run this in the root of the project" in result.stderr
