"""Semantic IDs in a release: what it carries, what `verify` refuses, new items, and attestation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
import toy
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import schemas
from pipeline import io
from pipeline.compare.releases import diff, lines
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.release import manifest, verify
from pipeline.release.read import Release, unpacked
from pipeline.remote.fetch import fetch
from pipeline.semantic_ids import files
from stages.cli import app

WHERE = "semantic_ids/beit3/residual-kmeans"
Change = Callable[[Path], None]


@pytest.fixture
def release(with_codes: Layout, tmp_path: Path) -> Path:
    return shutil.copytree(with_codes.release, tmp_path / "release")


def relisted(release: Path) -> None:
    """Make the manifest agree with all files of semantic IDs, as someone would who wants to deceive."""

    def change(content: dict) -> None:
        content["files"] = [f for f in content["files"] if not f["path"].startswith("semantic_ids/")]
        for path in sorted((release / "semantic_ids").rglob("*.*")):
            table = "semantic_ids" if path.suffix == ".parquet" else None
            content["files"].append(manifest.describe(release, path, table).model_dump())

    releases.edit(release, change)


def facts(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        io.write_json(folder / files.FACTS, io.read_json(folder / files.FACTS) | changes)

    return change


def codebooks(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / files.CODEBOOKS)
        save_file({"centroids": np.ascontiguousarray(change(tensors["centroids"]))}, folder / files.CODEBOOKS)

    return changed


def column(name: str, change: Callable[[list], list]) -> Change:
    return lambda folder: releases.rewrite(folder / files.IDS, name, change)


def test_a_release_carries_codes_of_all_methods_but_controls(with_codes: Layout) -> None:
    built = with_codes.release
    listed = {f.path: f for f in manifest.load(built).files if f.path.startswith("semantic_ids/")}
    assert {*listed} == {f"semantic_ids/{n}/residual-kmeans/{f}" for n in ("beit3", "minilm-cnn") for f in files.NAMES}
    assert listed[f"{WHERE}/semantic_ids.parquet"].table == "semantic_ids"
    assert {f.feature_set for f in listed.values()} == {"beit3", "minilm-cnn"}
    for path in listed:
        assert (built / path).read_bytes() == (with_codes.root / path.replace("/", "/shop/", 1)).read_bytes()
    card = (built / "README.md").read_text()
    assert f"| `{WHERE}/codebooks.safetensors` |  | codebooks of the semantic IDs |" in card
    assert all(text in card for text in ("### Semantic IDs", "| beit3 · residual-kmeans |", "| beit3 · random |"))
    croissant = json.loads((built / "croissant.json").read_text())
    records = next(r for r in croissant["recordSet"] if r["name"] == "semantic-ids-beit3-residual-kmeans")
    assert next(f for f in records["field"] if f["name"] == "codes")["arrayShape"] == "2"


def test_methods_are_chosen_by_name(tmp_path: Path) -> None:
    layout = coded.outputs(tmp_path, coded.params(publish={"semantic_ids": ["random"]}))
    assert {p.parent.name for p in (layout.release / "semantic_ids").rglob("*.json")} == {"random"}
    assert "| minilm-cnn · random |" in (layout.release / "README.md").read_text()
    releases.published(layout, coded.params(publish={"features": ["beit3"]}))
    assert "| minilm-cnn · random |" not in (layout.release / "README.md").read_text()  # a set that is not released
    none = coded.released(layout, coded.params(publish={"semantic_ids": []}))
    assert not (none.release / "semantic_ids").exists()
    with pytest.raises(UserError, match=r"'residual-kmeans' .*shop; there are random"):
        coded.released(layout, coded.params(publish={"semantic_ids": ["residual-kmeans"]}, methods=["random"]))


def test_a_release_without_codes_verifies_as_before(release: Path) -> None:
    releases.drop(release, "semantic_ids/")
    shutil.rmtree(release / "semantic_ids")
    assert len(list(verify(release))) == 4


FAULTS: dict[str, tuple[Change, str]] = {
    "another feature set": (facts(features="minilm-cnn"), "codes.json is of 'minilm-cnn' by 'residual-kmeans'"),
    "another method": (facts(method="random"), "codes.json is of 'beit3' by 'random'"),
    "other vectors": (facts(features_sha256="0" * 64), "made from other vectors than the released ones"),
    "another width": (facts(width=3), "codes.json says 3 numbers a vector, the feature set has 2"),
    "other levels": (facts(levels=3), "2 codes an item, codes.json says 3"),
    "fewer codes": (facts(codes=2), "expected 0 .. 1"),
    "another policy": (facts(collisions="keep"), "column 'suffix' does not agree with codes and policy"),
    "negative code": (column("codes", lambda c: [[-1, 0], *c[1:]]), r"row 0: codes \[-1, 0\], expected 0 .. 2"),
    "large code": (column("codes", lambda c: [*c[:-1], [0, 3]]), r"row 5: codes \[0, 3\], expected 0 .. 2"),
    "one ID twice": (column("suffix", lambda s: [0] * len(s)), "row 4: the same ID as an earlier item, against policy"),
    "no suffix": (column("suffix", lambda s: [None, *s[1:]]), "row 0: column 'suffix' does not agree"),
    "codes of nothing": (column("status", lambda s: ["no_content", *s[1:]]), "row 0: column 'status' does not agree"),
    "other ids": (column("asin", lambda a: a[::-1]), "row 0: asin"),
    "NaN in codebooks": (codebooks(lambda c: c * np.nan), "tensor 'centroids' holds values that are not finite"),
    "narrow codebooks": (codebooks(lambda c: c[:, :, :1]), "beit3/residual-kmeans/codebooks.safetensors: "),
    "few centroids": (codebooks(lambda c: c[:, :2]), "beit3/residual-kmeans/codebooks.safetensors: "),
    "few levels": (codebooks(lambda c: c[:1]), "beit3/residual-kmeans/codebooks.safetensors: "),
    "no codebooks": (lambda folder: (folder / files.CODEBOOKS).unlink(), "has no codebooks.safetensors"),
    "no facts": (lambda folder: (folder / files.FACTS).unlink(), "has no codes.json"),
    "a stranger": (lambda folder: (folder / "more.txt").write_text("?"), "more.txt: is no file of semantic IDs"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_codes_that_do_not_agree_are_named(release: Path, case: str) -> None:
    change, fault = FAULTS[case]
    change(release / WHERE)
    relisted(release)
    with pytest.raises(UserError, match=fault):
        list(verify(release))


def test_reassigned_codes_may_collide_only_where_all_last_codes_are_taken() -> None:
    from pipeline.release.semantic_ids import id_fault

    made = files.Facts(
        features="x", features_sha256="", width=2, method="m", settings={}, levels=2, codes=2, collisions="reassign",
        seed=0,
    )  # fmt: skip

    def table(codes: list[list[int]]) -> pa.Table:
        n = len(codes)
        columns = [pa.array(range(n), pa.int32()), [str(i) for i in range(n)], pa.array(codes, schemas.codes(2))]
        columns += [pa.nulls(n, pa.int32()), pa.nulls(n, pa.float32()), ["coded"] * n]
        return pa.table(columns, names=schemas.semantic_ids(2).names)

    assert id_fault([table([[0, 0], [0, 1], [0, 1], [1, 1]])], made) == ""
    assert id_fault([table([[0, 0], [0, 1], [1, 1], [1, 1]])], made).startswith("row 3: the same ID as an earlier item")


def test_one_feature_set_is_fetched_with_only_its_codes(with_codes: Layout, tmp_path: Path) -> None:
    part = fetch(str(with_codes.release), tmp_path / "part", "minilm-cnn")
    assert [p.name for p in (part / "semantic_ids").iterdir()] == ["minilm-cnn"]
    assert len(list(verify(part))) == 4


def test_a_release_laid_out_as_a_dataset_has_its_codes(with_codes: Layout) -> None:
    with unpacked(Release(with_codes.release).verified()) as layout:
        assert files.load(layout.semantic_ids("beit3", "residual-kmeans")).facts.shape == files.Shape(2, 3)


def test_a_diff_counts_items_with_other_codes(with_codes: Layout, release: Path) -> None:
    built = with_codes.release
    assert diff(built, release, 5)["semantic_ids"]["beit3/residual-kmeans"] == {"items": 6, "changed": 0}
    column("suffix", lambda s: [3, *s[1:]])(release / WHERE)
    relisted(release)
    changed = diff(built, release, 5)
    assert changed["semantic_ids"]["beit3/residual-kmeans"] == {"items": 6, "changed": 1}
    assert changed["bump"] == "minor"
    assert "codes beit3/residual-kmeans: 1 of 6 items have another ID" in list(lines(changed))


# --- new items, and how these were made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that stands alone: moved out of the folder of outputs, which is gone."""
    made = coded.with_encoders(tmp_path_factory.mktemp("made")).release
    return made.rename(tmp_path_factory.mktemp("alone") / "release")


@pytest.fixture
def items(alone: Path, tmp_path: Path) -> Path:
    """The release's own items, and a twin of the first, and one without content."""
    rows = pq.read_table(alone / "items.parquet", columns=["asin", "text"]).to_pylist()
    rows += [{"asin": "twin", "text": rows[0]["text"]}, {"asin": "nothing"}]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_new_items_get_codes_by_the_released_codebooks(alone: Path, items: Path, tmp_path: Path) -> None:
    name, given = "beit3-image-masked", ("--codes", "residual-kmeans", "--to", tmp_path / "new")
    command = ["embed", items, "--release", alone, "--encoder", name, *given]
    code, output = run(*command)
    assert code == 0, output
    table = io.read_table(tmp_path / "new/features-00000.parquet", schemas.embedded(64, 2))
    released = pq.read_table(alone / f"semantic_ids/{name}/residual-kmeans/semantic_ids.parquet", partitioning=None)
    codes = table["codes"].to_pylist()
    assert codes[: toy.ITEMS] == released["codes"].to_pylist()
    assert codes[-2] == codes[0]
    assert (codes[-1], table["suffix"].to_pylist()[-1], table["cosine"].to_pylist()[-1]) == (None, None, None)
    there = [tuple(c) for c in released["codes"].to_pylist() if c is not None]
    for row, own in enumerate(codes[:-1]):
        if own is not None:
            before = there.count(tuple(own)) + codes[:row].count(own)
            assert table["suffix"][row].as_py() == before


def test_a_method_that_is_not_there_or_a_control_is_one_line(alone: Path, items: Path, tmp_path: Path) -> None:
    command = ["embed", items, "--release", alone, "--encoder", "beit3", "--to", tmp_path / "new", "--codes"]
    code, output = run(*command, "residual-kmean")
    assert code == 1
    assert "'residual-kmean'; did you mean 'residual-kmeans'?" in output
    layout = coded.outputs(tmp_path / "outputs", coded.params(publish={"semantic_ids": ["random"]}))
    command = ["embed", items, "--release", layout.release, "--encoder", "minilm-cnn", "--to", tmp_path / "new"]
    code, output = run(*command, "--codes", "random")
    assert code == 1
    assert "'random' is a control" in output
    assert not (tmp_path / "new").exists()


def test_codes_are_attested_with_their_vectors(tmp_path: Path) -> None:
    layout = coded.with_encoders(tmp_path)
    command = ["attest", layout.release, "--data", "shop", "--root", tmp_path, "--json", tmp_path / "attested.json"]
    code, output = run(*command)
    assert code == 0, output
    assert "codes beit3/residual-kmeans: nearest at every level for 6 of 6 rows" in output
    assert "attested; text, image, vector and codes of 6 rows agree" in output
    rows = json.loads((tmp_path / "attested.json").read_text())["rows"]
    assert rows[0]["codes"]["beit3/residual-kmeans"] == {"agrees": True, "levels": 2, "nearest": True}
    column("codes", lambda c: [[(c[0][0] + 1) % 3, c[0][1]], *c[1:]])(layout.release / WHERE)
    column("suffix", lambda s: [9, *s[1:]])(layout.release / WHERE)
    relisted(layout.release)
    code, output = run(*command)
    assert code == 1
    assert "codes beit3/residual-kmeans DIFFERS (nearest in the first 0)" in output
    assert "NOT attested; 1 of 6 rows differ (codes of 1)" in output
