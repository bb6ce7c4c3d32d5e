"""The leaderboard of releases and published figures."""

import json
import shutil
from pathlib import Path

import pytest
import toy

from alignrec.pipeline import io
from alignrec.pipeline.compare import leaderboard
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest
from alignrec.stages import publish


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = toy.outputs(tmp_path_factory.mktemp("shop"))
    with running("publish", "shop", toy.PARAMS, layout.root) as run:
        publish.main(run)
    return layout.release


def changed(release: Path, to: Path, **row: object) -> Path:
    """Return a copy whose results have changed rows and a matching manifest."""
    copy = shutil.copytree(release, to)
    results = json.loads((copy / "results.json").read_text())
    results["results"] = [result | row for result in results["results"]]
    (copy / "results.json").write_text(json.dumps(results))
    made = manifest.load(copy)
    files = [f.model_copy(update={"sha256": io.sha256(copy / f.path)}) for f in made.files]
    manifest.write(copy / manifest.NAME, made.model_copy(update={"files": files}))
    return copy


def test_rows_are_test_figures_of_whole_models(release: Path) -> None:
    (entries,) = leaderboard.read_entries(release).values()
    rows = {(e.model, e.features): e for e in entries}
    assert set(rows) == {("alignrec", "beit3"), ("lightgcn", "none")}  # no ablation
    assert rows["alignrec", "beit3"].headline == pytest.approx(0.31)


BABY, OTHER = "f4e4878167cfcd2c", "e" * 16
"""fingerprints of the published split of Baby under its protocol, and of another"""


def tables(page: str) -> dict[str, str]:
    """Return section id -> its text."""
    parts = page.split('<section id="')
    return {part.partition('"')[0]: part for part in parts[1:]}


def test_published_figures_join_the_rows_of_their_protocol_and_no_others(release: Path, tmp_path: Path) -> None:
    alike = changed(release, tmp_path / "f", fingerprint=BABY)
    sections = tables(
        leaderboard.render_leaderboard([leaderboard.read_entries(alike), leaderboard.read_entries(release)])
    )
    joined, apart = (sections[name] for name in sorted(name for name in sections if name.startswith("measured-")))
    if BABY not in joined:
        joined, apart = apart, joined
    baby = leaderboard.published_entries("baby")
    assert all(row.model in joined and row.source.replace("'", "&#39;") in joined for row in baby)
    assert "19,445 users, 7,050 items, 160,792 interactions" in joined
    assert joined.index("shop") < joined.index("COHESION")  # by Recall@20: ours has .31 there
    assert not any(row.model in apart for row in baby if row.model not in ("AlignRec", "LightGCN"))
    assert "published-baby" not in sections
    assert {"published", "published-sports", "published-electronics", "published-clothing"} <= sections.keys()


def test_a_hostile_name_is_text(release: Path, tmp_path: Path) -> None:
    page = leaderboard.render_leaderboard(
        [leaderboard.read_entries(changed(release, tmp_path / "c", model="<script>alert(1)</script>"))]
    )
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("row", [{"mean": "much"}, {"mean": float("nan")}, {"model": "x" * 200}, {"values": 3}])
def test_results_that_are_none_are_refused(release: Path, tmp_path: Path, row: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not results as alignrec writes them"):
        leaderboard.read_entries(changed(release, tmp_path / "d", **row))
