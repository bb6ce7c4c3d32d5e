"""`alignrec diff`: what changed between two releases, and the version bump; and the leaderboard."""

import json
import shutil
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from shop import featured, toy
from shop import releases as releases_of

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import diff as releases
from alignrec.pipeline.release import leaderboard, manifest
from alignrec.pipeline.report import similarity
from alignrec.pipeline.runtime.layout import Layout

OTHER = np.random.default_rng(9).normal(size=(6, 3))


def published(layout: Layout, version: str = "0.1.0") -> Path:
    params = toy.PARAMS.model_copy(update={"publish": toy.PARAMS.publish.model_copy(update={"version": version})})
    run = toy.run("publish", params, layout.root)
    return run.layout.release


@pytest.fixture
def layout(plain: Path, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(plain.parents[2], tmp_path / "outputs"), "shop")


def republished(layout: Layout, vectors: np.ndarray, version: str = "0.1.1") -> Path:
    """Publish the shop with other vectors as `beit3`."""
    toy.write_features(layout, "beit3", vectors)
    return published(layout, version)


def resigned(release: Path) -> Path:
    """Update the hashes of the manifest to the files."""
    made = manifest.load(release)
    files = [f.model_copy(update={"sha256": io.sha256(release / f.path)}) for f in made.files]
    manifest.write(release / manifest.MANIFEST_FILE, made.model_copy(update={"files": files}))
    return release


def test_other_features_are_major(layout: Layout, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "NEIGHBOURS", 1)  # of 5 others
    diff = releases.diff_releases(plain, republished(layout, OTHER[:, :2]))
    assert diff["values"] == ["features/beit3/features-00000.parquet: changed", "graph/beit3/edges.parquet: changed"]
    assert (diff["bump"], diff["versions"]["due"]) == ("major", "1.0.0")
    assert [diff["features"][name]["bump"] for name in ("beit3", "minilm-cnn")] == ["major", "none"]
    lines = list(releases.describe_diff(diff))
    assert lines[-1] == "version: a major change: 0.1.0 -> 1.0.0; it calls itself 0.1.1"
    assert any(line.startswith("beit3: a major change: ") for line in lines)
    assert "minilm-cnn: the same" in lines


def test_rounding_within_a_space_is_a_patch(layout: Layout, plain: Path) -> None:
    x = featured.vectors(layout, "beit3").astype(np.float16).astype(np.float64)
    diff = releases.diff_releases(plain, republished(layout, x))
    assert (diff["bump"], diff["versions"]["due"]) == ("patch", "0.1.1")
    assert releases.summarise_diff(diff) == "the same items; vectors of the others can stay"
    assert [releases.is_at_least(diff, bump) for bump in ("patch", "minor", "major")] == [True, False, False]


def test_another_space_is_minor_although_all_neighbours_stay(layout: Layout, plain: Path) -> None:
    republished(layout, featured.vectors(layout, "beit3")[:, ::-1])
    table = io.read_features(layout.features("beit3"))
    record = toy.record("encode") | {io.FINGERPRINT: {"weights": "fitted again"}}
    toy.write_set(layout.features("beit3"), table, record=record)
    newer = published(layout, "0.1.1")
    diff = releases.diff_releases(plain, newer)
    assert (diff["features"]["beit3"]["overlap"], diff["bump"]) == (1, "minor")
    sentence = "the same items; index all again: another space of beit3"
    assert releases.summarise_diff(diff) == sentence
    result = alignrec("diff", plain, newer, "--fail-on", "minor")
    assert (result.exit_code, result.output.splitlines()[0]) == (1, sentence)
    assert alignrec("diff", plain, newer, "--fail-on", "major").exit_code == 0
    assert alignrec("diff", plain, newer, "--fail-on", "mayor").exit_code == 2


def test_items_are_new_gone_or_changed(layout: Layout, plain: Path) -> None:
    releases_of.rewrite(layout.release / "items.parquet", "asin", lambda asins: ["B0", *asins[1:]])
    releases_of.rewrite(layout.release / "items.parquet", "input_text_sha256", lambda hashes: [*hashes[:-1], "0" * 64])
    for path in layout.release.glob("features/*/*.parquet"):
        releases_of.rewrite(path, "asin", lambda asins: ["B0", *asins[1:]])
    diff = releases.diff_releases(plain, resigned(layout.release))
    assert diff["items"] == {"new": ["B0"], "gone": ["A0"], "changed": ["A5"]}
    lines = [*releases.describe_diff(diff)]
    assert lines[0] == "1 new, 1 gone, 1 changed; vectors of the others can stay"
    assert lines[1:4] == ["new: B0", "gone: A0", "changed: A5"]


def test_another_width_or_a_missing_set_is_major(layout: Layout, plain: Path) -> None:
    shutil.rmtree(layout.features("minilm-cnn"))
    diff = releases.diff_releases(plain, republished(layout, OTHER))
    assert diff["schema"] == [
        "features/beit3: column vector was fixed_size_list<element: float not null>[2]",
        "features/minilm-cnn: gone",
        "graph/minilm-cnn/edges.parquet: gone",
    ]
    assert (diff["bump"], diff["versions"]["due"]) == ("major", "1.0.0")


def test_items_are_matched_by_asin(layout: Layout, plain: Path) -> None:
    newer, turned = layout.release, list(range(6))[::-1]
    for path in (newer / "items.parquet", *newer.glob("features/*/*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.take(turned).set_column(0, table.schema.field(0), table.column(0)), path)
    diff = releases.diff_releases(plain, resigned(newer))
    assert (diff["renumbered"], diff["bump"]) == (True, "minor")
    assert "items are numbered in another order" in releases.describe_diff(diff)
    assert diff["features"]["beit3"]["overlap"] == 1
    items = pq.read_table(newer / "items.parquet")
    others = items.set_column(1, items.schema.field("asin"), pa.array([f"B{i}" for i in range(6)]))
    pq.write_table(others, newer / "items.parquet")
    with pytest.raises(UserError, match="no item in common"):
        releases.diff_releases(plain, resigned(newer))


# --- the leaderboard of releases and published figures


def changed(release: Path, to: Path, **row: object) -> Path:
    """Return a copy whose results have changed rows and a matching manifest."""
    copy = shutil.copytree(release, to)
    results = json.loads((copy / "results.json").read_text())
    results["results"] = [result | row for result in results["results"]]
    (copy / "results.json").write_text(json.dumps(results))
    return resigned(copy)


def test_rows_are_test_figures_of_whole_models(plain: Path) -> None:
    rows = {(e.model, e.features): e for e in leaderboard.read_entries(plain)}
    assert set(rows) == {("alignrec", "beit3"), ("lightgcn", "none")}  # no ablation
    assert rows["alignrec", "beit3"].headline == pytest.approx(0.31)
    assert {(e.dataset, e.source) for e in rows.values()} == {("shop", "shop 0.1.0")}


BABY = "f4e4878167cfcd2c"
"""fingerprint of the published split of Baby under its protocol"""


def test_published_figures_stand_among_the_rows_of_their_split(plain: Path, tmp_path: Path) -> None:
    alike = changed(plain, tmp_path / "f", fingerprint=BABY)
    done = alignrec("leaderboard", alike, plain)
    assert done.exit_code == 0, done.output
    head, _, *lines = done.output.partition("\n\n")[0].splitlines()
    rows = [dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in lines]
    joined = [row for row in rows if row["fingerprint"] == BABY]
    baby = [entry for entry in leaderboard.published_entries() if entry.dataset == "baby"]
    assert len(joined) == len(baby) + 2
    assert joined[0]["model"] == "alignrec"  # ours has .31
    recalls = [float(row["Recall@20"].split(" ± ")[0]) for row in joined]
    assert recalls == sorted(recalls, reverse=True)
    splits = [split for split, _ in groupby(row["fingerprint"] for row in rows)]
    assert len(splits) == len({*splits}) == 3
    assert splits[-1] == "", "of unknown splits"
    assert "One seed each" in done.output


def test_a_hostile_name_is_text(plain: Path, tmp_path: Path) -> None:
    hostile = changed(plain, tmp_path / "c", model="<script>\x1b[31m|x")
    output = alignrec("leaderboard", hostile).output
    assert "\\<script\\>" in output
    assert "\\|x" in output
    assert "\x1b" not in output


@pytest.mark.parametrize("row", [{"mean": "much"}, {"mean": float("nan")}, {"model": "x" * 200}, {"values": 3}])
def test_results_that_are_none_are_refused(plain: Path, tmp_path: Path, row: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not results as alignrec writes them"):
        leaderboard.read_entries(changed(plain, tmp_path / "d", **row))
