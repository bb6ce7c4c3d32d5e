"""Draws docs/stages.svg: which stage reads which, as `dvc dag --dot` prints it, without edges that others imply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stages.order import STAGES

PAGE = Path(__file__).resolve().parent.parent / "docs/stages.svg"
PLACES = {
    "download": (0, 1.5), "interactions": (1, 1.5), "items": (2, 1.5), "images": (3, 1.5), "pretrain": (4, 1.5),
    "encode": (5, 1.5), "graph": (6, 1), "probe": (6, 3), "semantic_ids": (7, 0), "train": (7, 1), "benchmark": (7, 2),
    "study": (8, 2), "report": (9.3, 1), "publish": (9.3, 2),
}  # fmt: skip
"""stage -> its column and row; one that is not here stands below the others, right of what it reads"""
BELOW = 4
ACROSS, DOWN, WIDTH, HEIGHT, MARGIN, BEND = 118, 54, 98, 32, 6, 52
"""pixels from column to column and row to row, of a box, around all, and in which a line changes its row"""
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">
<style>
text {{ font: 14px ui-sans-serif, system-ui, sans-serif; text-anchor: middle; fill: #22242a }}
rect {{ fill: #fff; stroke: #2c8a8a; stroke-width: 1.2 }}
path {{ fill: none; stroke: #9a9ca6; stroke-width: 1.2 }}
#tip {{ fill: #9a9ca6; stroke: none }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6e5e1 }} rect {{ fill: #1e2026 }} }}
</style>
<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path id="tip" d="M0 0 8 4 0 8z"/></marker>
"""


def main() -> None:
    """Write the picture."""
    PAGE.write_text(svg(), encoding="utf-8")


def edges() -> Iterator[tuple[str, str]]:
    """Yield each pair of a stage and one that reads it, but those that a longer way joins too."""
    reads = {stage.name: {before.name for before in stage.reads} for stage in STAGES.values()}
    behind: dict[str, set[str]] = {}
    for name in reads:  # stages stand in order
        behind[name] = reads[name].union(*(behind[before] for before in reads[name]))
    for name, direct in reads.items():
        for before in sorted(direct, key=list(reads).index):
            if not any(before in behind[other] for other in direct):
                yield before, name


def svg() -> str:
    """Return the picture."""
    columns, rows = (1 + max(_place(stage)[axis] for stage in STAGES) for axis in (0, 1))
    width, height = round((columns - 1) * ACROSS) + WIDTH + 2 * MARGIN, (rows - 1) * DOWN + HEIGHT + 2 * MARGIN
    label = "; ".join(f"{before} to {after}" for before, after in edges())
    lines = [_wire(*_corner(before), *_corner(after)) for before, after in edges()]
    return HEAD.format(width=width, height=height, label=label) + "".join([*lines, *map(_box, STAGES)]) + "</svg>\n"


def _place(stage: str) -> tuple[float, float]:
    reads = (_place(before.name)[0] for before in STAGES[stage].reads)
    return PLACES.get(stage) or (1 + max(reads, default=-1), BELOW)


def _corner(stage: str) -> tuple[int, int]:
    column, row = _place(stage)
    return MARGIN + round(column * ACROSS), MARGIN + round(row * DOWN)


def _wire(x: int, y: int, to_x: int, to_y: int) -> str:
    """Return a line along the row of its start, which bends before its end."""
    x, y, to_x, to_y = x + WIDTH, y + HEIGHT // 2, to_x - 1, to_y + HEIGHT // 2
    bend = max(x, to_x - BEND)
    half = (bend + to_x) // 2
    return f'<path d="M{x} {y}H{bend}C{half} {y} {half} {to_y} {to_x} {to_y}" marker-end="url(#arrow)"/>\n'


def _box(stage: str) -> str:
    x, y = _corner(stage)
    text = f'<text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 5}">{stage}</text>'
    return f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>{text}\n'


if __name__ == "__main__":
    main()
