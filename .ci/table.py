"""Update the table of stages in docs/stages.md."""

from __future__ import annotations

import re
from pathlib import Path

from alignrec.stages.order import STAGES

PAGE = Path(__file__).resolve().parent.parent / "docs/stages.md"
TABLE = re.compile(r"(?<=\|---\|---\|---\|\n)(\| .* \|\n)+")


def main() -> None:
    """Replace the rows of the first table."""
    rows = "".join(
        f"| {stage.name} | {stage.does} | {stage.writes} |\n" for stage in STAGES.values()
    )
    PAGE.write_text(TABLE.sub(rows, PAGE.read_text(encoding="utf-8"), count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
