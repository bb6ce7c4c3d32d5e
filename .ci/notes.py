"""Prints the notes of a release from CHANGELOG.md: `python .ci/notes.py 0.1.0`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
HEADING = re.compile(r"^## \[([^\]]+)\].*\n", re.MULTILINE)


def notes(changelog: str, version: str) -> str:
    """Return the section of a version, without its heading; LookupError if there is none, or nothing in it."""
    _, *parts = HEADING.split(changelog)
    sections = dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))
    if not sections.get(version):
        raise LookupError(f"CHANGELOG.md: no notes of {version}; it has {', '.join(sections)}")
    return sections[version]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1].removeprefix("v")))
    except LookupError as e:
        sys.exit(f"error: {e.args[0]}")
