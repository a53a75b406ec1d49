"""Draws docs/architecture.svg from the real imports: `python docs/draw_architecture.py` (needs import-linter).

Rows are the layers that pyproject.toml gives import-linter. An arrow says "imports"; arrows that follow from others
are left out (where a imports b and c, and b imports c, the arrow from a to c is not drawn). tests/test_architecture.py
fails where the picture falls behind the code.
"""

from __future__ import annotations

import html
import pathlib
import re
import sys

import grimp

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "deeplab2_kmax"
PROGRAMS = ("trainer/train.py", "trainer/export_model.py", "evaluation/evaluate.py")
WIDTH, ROW, BOX_HEIGHT, MARGIN, GAP = 1180, 104, 46, 24, 16
# Colors that stay apart in print and for the color-blind (Okabe and Ito, 2008), one a row.
COLORS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56708f", "#8a6d00", "#3c7a9e", "#7a5195", "#4d4d4d", "#4d4d4d")
HIDDEN = {"__main__", "version"}  # Too small to be shown.
# The rows below this one may be used by all parts: one box, no arrows.
LAST_DRAWN = "checkpoints"


def layers() -> list[list[str]]:
    """The rows, top first, as pyproject.toml has them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^layers = \[\n(.*?)^\]", text, re.M | re.S)[1]
    rows = [re.split(r"\s*[:|]\s*", line.strip().strip('",')) for line in block.splitlines()]
    shown = ([name for name in row if name not in HIDDEN] for row in rows)
    return [row for row in shown if row]


def drawn_and_base() -> tuple[list[list[str]], list[str]]:
    """The rows that are drawn, and the names of all below them."""
    rows = layers()
    count = next(i for i, row in enumerate(rows) if LAST_DRAWN in row) + 1
    return rows[:count], [name for row in rows[count:] for name in row]


def imports() -> dict[str, set[str]]:
    """Part of the package -> parts that it imports, without the arrows that follow from others."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    parts = {name for row in drawn_and_base()[0] for name in row}
    direct: dict[str, set[str]] = {part: set() for part in parts}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            source, target = _part(module), _part(imported)
            if source in parts and target in parts and source != target:
                direct[source].add(target)
    reach = {part: _reachable(part, direct) for part in parts}
    return {
        part: {target for target in direct[part] if not any(target in reach[other] for other in direct[part])}
        for part in parts
    }


def _part(module: str) -> str:
    return (module.split(".") + [""])[1]


def _reachable(part: str, direct: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [part]
    while waiting:
        for target in direct[waiting.pop()] - found:
            found.add(target)
            waiting.append(target)
    return found


def svg() -> str:
    """The picture."""
    drawn, base = drawn_and_base()
    rows = [list(PROGRAMS), *drawn]
    places, boxes = {}, []
    for i, row in enumerate(rows):
        width = min(250, (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row))
        left = (WIDTH - width * len(row) - GAP * (len(row) - 1)) / 2
        for j, name in enumerate(row):
            x, y = left + j * (width + GAP), MARGIN + i * ROW
            places[name] = (x + width / 2, y)
            fill = COLORS[i % len(COLORS)]
            label = name if "/" in name or not (ROOT / PACKAGE / name).is_dir() else f"{name}/"
            boxes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6" fill="#ffffff"'
                f' stroke="{fill}" stroke-width="2"/>'
            )
            boxes.append(f'<text x="{x + width / 2:.0f}" y="{y + 29}">{html.escape(label)}</text>')
    arrows = []
    row_of = {name: i for i, row in enumerate(rows) for name in row}
    for source, targets in sorted({**dict.fromkeys(PROGRAMS, {"training"}), **imports()}.items()):
        if source == "trainer/export_model.py":
            targets = {"serving"}
        for target in sorted(targets):
            (x1, y1), (x2, y2) = places[source], places[target]
            y1 += BOX_HEIGHT
            bend = max(24.0, (y2 - y1) * 0.45)
            arrows.append(
                f'<path d="M{x1:.0f} {y1} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2 - 5}"'
                f' stroke="{COLORS[row_of[source] % len(COLORS)]}"/>'
            )
    y = MARGIN + len(rows) * ROW - 30
    boxes.append(
        f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{BOX_HEIGHT}" rx="6" fill="#f2f2f2"'
        ' stroke="#4d4d4d" stroke-width="2"/>'
    )
    names = ", ".join(f"{name}/" if (ROOT / PACKAGE / name).is_dir() else name for name in base)
    boxes.append(f'<text x="{WIDTH // 2}" y="{y + 29}">all of them may use: {html.escape(names)}</text>')
    height = y + BOX_HEIGHT + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            "<title>The parts of deeplab2_kmax; arrows point from a part to what it imports, always down</title>",
            "<style>text{font:15px Helvetica,Arial,sans-serif;text-anchor:middle;fill:#1b1b1b}"
            "path{fill:none;stroke-width:1.4;opacity:.65;marker-end:url(#head)}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6"'
            ' orient="auto"><polygon points="0 0, 8 4, 0 8" fill="#555"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *arrows,
            *boxes,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    (ROOT / "docs" / "architecture.svg").write_text(svg(), encoding="utf-8")
