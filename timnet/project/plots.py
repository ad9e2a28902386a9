"""Pages of `dvc plots` that show without a network."""

from __future__ import annotations

from pathlib import Path

from timnet.paths import Workspace, write_text
from timnet.project.dvc import ask_dvc, refuse_without_dvc

OFFLINE = "tmp/offline-plots.html"  # below .dvc, where git looks at nothing


def show_offline(root: Path) -> None:
    """Let the pages of `dvc plots` show without a network, in this checkout.

    Raises:
        ParameterError: no repository of DVC.
    """
    import vl_convert

    refuse_without_dvc(root)
    # DVC's specifications are of Vega-Lite 5
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version="5.21")
    scripts = scripts.replace("</script", "<\\/script")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>DVC plots</title>\n'
        f"{{refresh_tag}}<script>{scripts}</script></head>\n<body>{{plot_divs}}</body></html>\n"
    )
    write_text(Workspace(root).dvc / OFFLINE, page)
    ask_dvc(root, "config", "--local", "plots.html_template", OFFLINE)
