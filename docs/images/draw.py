"""Draws README's pictures: the pipeline, light and dark, and the badges. `make pictures` runs it.

SVG by hand, since each picture is a few boxes; a browser's own fonts are used.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
THEMES = {
    "light": {"ink": "#1f2933", "faint": "#5b6770", "line": "#8a96a0", "box": "#f3f6f8"},
    "dark": {"ink": "#e6edf3", "faint": "#9aa7b2", "line": "#6b7884", "box": "#1d262e"},
}
ACCENT = "#12a594"
# column, row, title, what it holds
BOXES = {
    "data": (0, 0, "recordings", "data/, by DVC"),
    "manifest": (1, 0, "manifest", "labels, checks"),
    "features": (2, 0, "features", "39 MFCC a frame"),
    "folds": (2, 1, "folds", "who is tested when"),
    "train": (3, 0, "train", "all folds at once"),
    "score": (4, 0, "score", "UAR, WAR, 95 % CI"),
    "model": (4, 1, "model", "weights and card"),
    "report": (5, 0, "tables, report", "results/, by git"),
    "predict": (5, 1, "predict", "your recordings"),
}
ARROWS = (
    ("data", "manifest"),
    ("manifest", "features"),
    ("manifest", "folds"),
    ("features", "train"),
    ("folds", "train"),
    ("train", "score"),
    ("train", "model"),
    ("score", "report"),
    ("model", "predict"),
)
WIDTH, HEIGHT, COLUMN, ROW = 122, 52, 152, 84
BADGES = {
    "licence": ("licence", "Apache-2.0"),
    "python": ("Python", "3.11 | 3.12 | 3.13"),
    "paper": ("paper", "arXiv 2211.08233"),
}


def pipeline(theme: str) -> str:
    color = THEMES[theme]
    parts = [_group(color)]
    parts += [_arrow(color, first, second) for first, second in ARROWS]
    parts += [_box(color, *BOXES[name]) for name in BOXES]
    title = (
        "The pipeline: recordings, manifest, features and folds, training, scores, report, model"
    )
    return _svg(6 * COLUMN + 10, 2 * ROW + 66, title, parts)


def _place(name: str) -> tuple[int, int]:
    column, row = BOXES[name][:2]
    return 20 + column * COLUMN, 20 + row * ROW


def _box(color: dict[str, str], column: int, row: int, title: str, below: str) -> str:
    x, y = 20 + column * COLUMN, 20 + row * ROW
    middle = x + WIDTH / 2
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{color["box"]}" '
        f'stroke="{color["line"]}"/>'
        f'<text x="{middle}" y="{y + 22}" text-anchor="middle" font-size="14" font-weight="600" '
        f'fill="{color["ink"]}">{title}</text>'
        f'<text x="{middle}" y="{y + 40}" text-anchor="middle" font-size="11.5" '
        f'fill="{color["faint"]}">{below}</text>'
    )


def _arrow(color: dict[str, str], first: str, second: str) -> str:
    (x0, y0), (x1, y1) = _place(first), _place(second)
    x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT / 2, y1 + HEIGHT / 2
    middle = (x0 + x1) / 2
    path = f"M{x0} {y0} C{middle} {y0} {middle} {y1} {x1 - 7} {y1}"
    head = f"M{x1 - 8} {y1 - 4} L{x1 - 1} {y1} L{x1 - 8} {y1 + 4} Z"
    return (
        f'<path d="{path}" fill="none" stroke="{color["line"]}" stroke-width="1.5"/>'
        f'<path d="{head}" fill="{color["line"]}"/>'
    )


def _group(color: dict[str, str]) -> str:
    """What DVC and Prefect do, below the stages."""
    y = 2 * ROW + 32
    x0, x1 = 20, 20 + 5 * COLUMN + WIDTH
    return (
        f'<path d="M{x0} {y - 10} v8 h{x1 - x0} v-8" fill="none" stroke="{ACCENT}" '
        'stroke-width="2"/>'
        f'<text x="{(x0 + x1) / 2}" y="{y + 18}" text-anchor="middle" font-size="13" '
        f'fill="{color["ink"]}">DVC decides what is stale. Prefect runs it, here or on other '
        "machines, and shows it.</text>"
    )


def badge(name: str) -> str:
    left, right = BADGES[name]
    a, b = (round(6.6 * len(text)) + 14 for text in (left, right))
    text = 'y="14" text-anchor="middle" font-size="11" fill="#fff"'
    parts = [
        f'<rect width="{a}" height="20" rx="3" fill="#4b5563"/>',
        f'<rect x="{a - 3}" width="{b + 3}" height="20" rx="3" fill="#0f766e"/>',
        f'<rect x="{a - 3}" width="4" height="20" fill="#0f766e"/>',
        f'<text x="{a / 2 - 1}" {text}>{left}</text>',
        f'<text x="{a + b / 2 - 1}" {text}>{right}</text>',
    ]
    return _svg(a + b, 20, f"{left}: {right}", parts)


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{FONT}">'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def pictures() -> dict[str, str]:
    """Every file that this draws, by its name."""
    drawn = {f"pipeline-{theme}.svg": pipeline(theme) for theme in THEMES}
    return drawn | {f"badge-{name}.svg": badge(name) for name in BADGES}


if __name__ == "__main__":
    for name, text in pictures().items():
        (HERE / name).write_text(text, encoding="utf-8")
