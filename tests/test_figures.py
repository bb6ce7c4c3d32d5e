"""Tables of the docs match files of figures."""

import re
import subprocess
from pathlib import Path
from typing import Any

from alignrec.pipeline import io
from alignrec.pipeline.report.figures import ARTICLE
from benchmarks import _figures

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"```.*?```", re.DOTALL)


def test_the_pages_tables_of_the_article_are_what_git_keeps_of_the_recorded_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "study.md").read_text()
    shown = [part for part in ARTICLE if f"<!-- figures: article sample {part} -->" in page]
    assert shown
    for part in shown:
        name = f"outputs/figures/sample/article-{part}.json"
        kept = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, check=True)
        io.write_bytes(tmp_path / name.removeprefix("outputs/"), kept.stdout)
    assert _figures.rewritten(page, tmp_path) == (page, []), "make figures"


def test_a_figure_in_prose_is_in_a_table_of_its_page_or_in_a_recorded_file() -> None:
    files = (ROOT / "outputs" / "figures").glob("*/*.json")
    recorded = [number for path in files for number in numbers(io.read_json(path))]
    unknown = []
    for page in PAGES:
        lines = CODE.sub("", page.read_text()).splitlines()
        known = [*recorded, *numbers([line for line in lines if line.startswith("|")])]
        for line in (line for line in lines if not line.startswith("|")):
            for figure in re.findall(r"(?<![\w.])\.\d{3,}", line):
                half = 0.5 * 10.0 ** (1 - len(figure)) + 1e-9
                if not any(abs(number - float(figure)) <= half for number in known):
                    unknown.append(f"{page.name}: {figure} in: {line}")
    assert unknown == []


def numbers(value: Any) -> list[float]:
    """Return all fractions of a JSON value, and of its strings."""
    if isinstance(value, dict | list):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in numbers(one)]
    if isinstance(value, str):
        return [float(number) for number in re.findall(r"(?<![\w.])\d?\.\d+", value)]
    return [value] if isinstance(value, float) else []
