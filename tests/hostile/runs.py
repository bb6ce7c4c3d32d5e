"""What was run last of the long tests, and on which commit: runs.json, and the table of it in docs/robustness.md.

The targets of the Makefile write both; a test compares them.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("runs.json")
PAGE = ROOT / "docs/robustness.md"
START, END = "<!-- runs -->\n", "<!-- end of runs -->\n"
HEAD = "| last run | inputs | wrong | of commit |\n|---|---|---|---|\n"


def record(name: str, inputs: int, unit: str, wrong: int) -> None:
    """Note how many inputs a test had and how many went wrong."""
    entry = {"inputs": inputs, "unit": unit, "wrong": wrong, "commit": commit()}
    runs = read() | {name: entry}
    FILE.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), runs), "utf-8")


def read() -> dict[str, dict[str, str | int]]:
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def commit() -> str:
    """Return the commit of this clone, and whether files differ from it."""
    shown = git("rev-parse", "--short=8", "HEAD")
    edited = git("status", "--porcelain", "--untracked-files=no")
    return f"{shown} with edits" if edited else shown


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def with_table(page: str, runs: Mapping[str, Mapping[str, str | int]]) -> str:
    """Return the page with the table of these runs."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    rows = [
        f"| `make {name}` | {run['inputs']:,} {run['unit']} | {run['wrong']:,} | {run['commit']} |\n"
        for name, run in sorted(runs.items())
    ]
    return "".join([before, START, HEAD, *rows, END, after])
