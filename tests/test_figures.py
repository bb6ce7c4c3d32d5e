"""Tables of the docs match files of figures."""

import subprocess
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.report.figures import ARTICLE
from benchmarks import _figures

ROOT = Path(__file__).parent.parent


def test_the_pages_tables_of_the_article_are_what_git_keeps_of_the_recorded_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "study.md").read_text()
    shown = [part for part in ARTICLE if f"<!-- figures: article sample {part} -->" in page]
    assert shown
    for part in shown:
        name = f"outputs/figures/sample/article-{part}.json"
        kept = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, check=True)
        io.write_bytes(tmp_path / name.removeprefix("outputs/"), kept.stdout)
    assert _figures.rewritten(page, tmp_path) == (page, []), "make figures"
