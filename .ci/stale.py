"""Name the stages whose code is not that of code.json."""

from __future__ import annotations

import sys
from pathlib import Path

from alignrec.commands.project import CODE, stale_stages
from alignrec.stages.order import IN_ORDER

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Exit with a line if there are any."""
    stale = stale_stages(ROOT / CODE, IN_ORDER)
    if stale:
        names = ", ".join(stale)
        remedy = f"run `make init`, then `git add {CODE}`"
        sys.exit(f"error: {CODE} is stale: the code of {names} was edited; {remedy}")


if __name__ == "__main__":
    main()
