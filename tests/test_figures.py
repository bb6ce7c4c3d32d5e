"""Tables of the docs come from files of figures."""

import shutil
import subprocess
from pathlib import Path

import pytest
import toy

from benchmarks import _figures
from pipeline import io
from pipeline.layout import Layout
from pipeline.report import figures
from pipeline.report.figures import ARTICLE
from pipeline.report.outputs import Outputs

ROOT = Path(__file__).parent.parent
PAGE = """# Page
before
<!-- figures: {kind} {dataset} -->
typed by hand
<!-- /figures -->
after
"""


@pytest.mark.parametrize("kind", _figures.KINDS)
def test_a_block_is_made_from_files_and_is_made_equal_again(kind: str, tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    if kind == "probes":  # the toy's evidence has no width
        io.write_json(layout.probes, io.read_json(layout.probes) | {"processed": {"width": 128}})
    if kind == "ceiling":
        probes = io.read_json(layout.probes)
        for raw in (probe for probe in probes.values() if "beit3" in probe):
            raw["planted"] = {key: value + 0.1 for key, value in raw["beit3"].items()}
        io.write_json(layout.probes, probes)
    if kind == "article":
        figures.write(Outputs(layout, released="beit3"), "alignrec")
    named = layout.dataset
    if kind == "content":
        named = "realdata shop"
        for case in ("shop_content", "shop_content_cold", "shop_content_few"):
            to = Layout(tmp_path / "realdata" / case, "shop").folder("benchmark")
            shutil.copytree(layout.folder("benchmark"), to)
    once, absent = _figures.rewritten(PAGE.format(kind=kind, dataset=named), tmp_path)
    assert not absent
    assert "typed by hand" not in once
    assert once.startswith("# Page\nbefore\n")
    assert once.endswith("<!-- /figures -->\nafter\n")
    assert "beit3" in once
    assert _figures.rewritten(once, tmp_path) == (once, [])


def test_a_block_without_outputs_stays_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(kind="results", dataset="nothing"))
    _figures.main([str(page), "--root", str(tmp_path)])
    assert page.read_text() == PAGE.format(kind="results", dataset="nothing")
    said = capsys.readouterr().err
    assert "results nothing" in said
    assert "alignrec benchmark nothing" in said
    with pytest.raises(ValueError, match=r"'result'; .*results, matrix"):
        _figures.rewritten(PAGE.format(kind="result", dataset="d"), tmp_path)


def test_the_pages_tables_of_the_article_are_what_git_keeps_of_the_recorded_run(tmp_path: Path) -> None:
    page, layout = (ROOT / "docs" / "study.md").read_text(), Layout(tmp_path, "sample")
    shown = [part for part in ARTICLE if f"<!-- figures: article sample {part} -->" in page]
    assert shown
    for part in shown:
        name = f"outputs/figures/sample/article-{part}.json"
        kept = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, check=True)
        io.write_bytes(layout.figures(f"article-{part}"), kept.stdout)
    assert _figures.rewritten(page, tmp_path) == (page, []), "make figures"
