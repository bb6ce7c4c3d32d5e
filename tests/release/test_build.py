"""A release says what is in it, is the same twice, and a changed byte anywhere is named."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
import toy
import yaml

import schemas
from pipeline import code, io
from pipeline.errors import UserError
from pipeline.release import build, manifest, verify
from pipeline.run import running
from stages import publish


def published(root: Path) -> Path:
    layout = toy.outputs(root)
    with running("publish", "shop", toy.PARAMS, root) as run:
        publish.main(run)
    return layout.release


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("built"))


@pytest.fixture
def release(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "release")


def edit(release: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest by hand."""
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(manifest.with_digest(content)))


def rewrite(release: Path, name: str, table: pa.Table) -> None:
    """Replace a table and make the manifest agree, as a careless publisher would."""
    pq.write_table(table, release / name)
    kind = next(f["table"] for f in json.loads((release / "manifest.json").read_text())["files"] if f["path"] == name)
    entry = manifest.describe(release, release / name, kind).model_dump()
    edit(
        release, lambda m: m["files"].__setitem__(next(i for i, f in enumerate(m["files"]) if f["path"] == name), entry)
    )


def test_a_release_holds_all_outputs_and_verifies(built: Path) -> None:
    files = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    assert files == {
        "README.md", "manifest.json", "croissant.json", "items.parquet", "results.json", "probes.json", "study.json",
        "embeddings/items.parquet", "embeddings/users.parquet", "embeddings/items.faiss", "embeddings/index.json",
        "features/beit3/features-00000.parquet",
        "graph/beit3/edges.parquet", "features/minilm-cnn/features-00000.parquet", "graph/minilm-cnn/edges.parquet",
        "interactions.parquet", "users.parquet", "encoders/minilm-cnn/encoder.json",
    }  # fmt: skip
    lines = list(verify(built))
    assert "shop 0.1.0, 17 files" in lines[0]
    assert "6 items, 4 users" in lines[2]


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = published(tmp_path)
    for path in built.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(built)).read_bytes(), path


def test_nothing_tells_the_machine(built: Path) -> None:
    whole = b"".join(p.read_bytes() for p in built.rglob("*.*"))
    assert b"somewhere/on/this/machine" not in whole
    assert str(built.parent).encode() not in whole
    items = pq.read_table(built / "items.parquet")
    assert items["image_url"][0].as_py() == ""
    assert items["image_url"][1].as_py() == "https://p/1.jpg"
    assert "image" not in items.column_names


def test_a_second_publish_replaces_the_first_whole(tmp_path: Path) -> None:
    release = published(tmp_path)
    (release / "stray.txt").write_text("old")
    with running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)
    assert not (release / "stray.txt").exists()
    assert [p.name for p in release.parent.iterdir() if p.name.startswith(".release")] == []


def test_a_failing_publish_leaves_the_old_release(tmp_path: Path) -> None:
    release = published(tmp_path)
    before = io.sha256(release / "manifest.json")
    with pytest.raises(ZeroDivisionError), build.replacing(release) as folder:
        (folder / "half").write_text(str(1 / 0))
    assert io.sha256(release / "manifest.json") == before


def test_a_dataset_with_little_publishes_what_it_has(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("images", "pretrain", "train", "probe", "benchmark", "study", "graph"):
        shutil.rmtree(layout.folder(stage))
    with running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)
    assert len(list(verify(layout.release))) == 4
    assert "No recommender was benchmarked" in (layout.release / "README.md").read_text()
    assert pq.read_table(layout.release / "items.parquet")["image_status"].null_count == toy.ITEMS


def test_no_feature_set_is_an_error_that_names_those_there(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for name in ("beit3", "minilm-cnn"):
        shutil.rmtree(layout.features(name))
    with pytest.raises(UserError, match="there are random"), running("publish", "shop", toy.PARAMS, tmp_path) as run:
        publish.main(run)


def test_the_index_in_a_release_finds_what_exact_ranking_finds(built: Path) -> None:
    index = faiss.read_index(str(built / "embeddings/items.faiss"))
    user, item = (
        io.matrix(pq.read_table(built / f"embeddings/{what}.parquet")["vector"]) for what in ("users", "items")
    )
    _, ids = index.search(user, 3)
    assert np.array_equal(ids, np.argsort(-user @ item.T, axis=1)[:, :3])
    assert io.read_json(built / "embeddings/index.json") == {
        "kind": "flat", "items": 6, "width": 3, "recall": 1.0, "k": 6, "users": 4,
    }  # fmt: skip


def test_a_twin_in_half_precision_is_released_on_demand(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    params = toy.PARAMS.model_copy(update={"publish": toy.PARAMS.publish.model_copy(update={"half": True})})
    with running("publish", "shop", params, tmp_path) as run:
        publish.main(run)
    full, half = (
        pq.read_table(layout.release / f"{where}/beit3/features-00000.parquet")
        for where in ("features", "features-half")
    )
    kind = half.schema.field("vector").type
    assert (kind.list_size, kind.value_type) == (toy.WIDTH, pa.float16())
    flat = half["vector"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(flat, io.matrix(full["vector"]).astype(np.float16).ravel())
    assert half.drop_columns("vector").equals(full.drop_columns("vector"))
    assert (
        "| `features-half/beit3/features-00000.parquet` | 6 | the same in float16 |"
        in (layout.release / "README.md").read_text()
    )


def test_what_half_precision_cannot_hold_is_an_error(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    x = np.ones((toy.ITEMS, toy.WIDTH))
    x[2, 0] = 1e6
    toy.write_features(layout, "beit3", x, [f"A{i}" for i in range(toy.ITEMS)])
    params = toy.PARAMS.model_copy(update={"publish": toy.PARAMS.publish.model_copy(update={"half": True})})
    with (
        pytest.raises(schemas.ContractError, match="row 2: element 0 is not finite"),
        running("publish", "shop", params, tmp_path) as run,
    ):
        publish.main(run)


def test_the_card_has_the_hubs_block_figures_and_credits(built: Path) -> None:
    card = (built / "README.md").read_text()
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["license"] == "cc-by-sa-4.0"
    assert block["size_categories"] == ["n<1K"]
    assert {"config_name": "features-beit3", "default": True, "data_files": [
        {"split": "train", "path": ["features/beit3/features-00000.parquet"]}]} in block["configs"]  # fmt: skip
    assert sum("default" in config for config in block["configs"]) == 1
    assert "| alignrec | beit3 | 3 | 0.3100 ± 0.0100 |" in card
    assert "| image | missing | 1 | 16.7% |" in card
    assert "openmoji.org" in card
    assert "Item-CF hit@20: no reason." in card
    assert "Measured on: pretrain, encode, train, probe, benchmark, study: Linux x86_64 (cpu)." in card
    assert "Of 6 items, 1 (16.7%) have no image here, 1 (16.7%) no text, and 1 (16.7%) neither." in card
    assert "Protocol mmrec, fingerprint eeeeeeeeeeeeeeee. AlignRec retrained" in card
    assert "| beit3 | image of 50 % masked | 0.1660 ± 0.0057 | -12.5% ± 3.5% |" in card
    rows = json.loads((built / "study.json").read_text())["mask"]
    assert {row["ratio"] for row in rows} == {0.0, 0.5, 1.0}
    assert "recall@6 of 1.0000 against the exact ranking" in card
    assert "2403.12384" in card


def test_the_card_has_no_holes_in_its_tables(built: Path) -> None:
    lines = (built / "README.md").read_text().splitlines()
    for i, line in enumerate(lines):
        if line.startswith("|---"):
            cells = line.count("|")
            j = i + 1
            while j < len(lines) and lines[j].startswith("|"):
                assert lines[j].count("|") == cells, lines[j]
                j += 1
            assert j > i + 1, f"an empty table after {lines[i - 1]}"


def test_the_manifest_says_what_made_the_tables(built: Path) -> None:
    loaded = manifest.load(built)
    assert set(loaded.made_by) == {"interactions", "items", "encode", "graph", "train", "benchmark", "publish"}
    assert loaded.inputs[0].name == "reviews.json.gz"
    assert loaded.made_by["train"].code == code.fingerprint("stages.train") != loaded.made_by["graph"].code
    assert loaded.code == code.fingerprint("stages.publish")
    assert loaded.weights == []


def test_the_manifest_has_the_hashes_of_what_was_learned(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    io.write_bytes(layout.model, b"recommender")
    releases.released(layout)
    learned = (layout.encoder.weights, layout.encoder.tokenizer, layout.model)
    assert [(w.name, w.bytes, w.sha256) for w in manifest.load(layout.release).weights] == [
        (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in learned
    ]


def test_results_carry_the_protocols_fingerprint_and_what_it_stands_for(built: Path) -> None:
    results = json.loads((built / "results.json").read_text())
    first = results["results"][0]
    assert results["protocols"][first["fingerprint"]]["rule"] == "mmrec"
    assert first["values"] == pytest.approx([0.3, 0.31, 0.32])


@pytest.mark.parametrize("name", ["README.md", "items.parquet", "graph/beit3/edges.parquet", "probes.json"])
def test_a_changed_truncated_or_missing_file_is_named(release: Path, name: str) -> None:
    path = release / name
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    with pytest.raises(UserError, match=f"{name}: changed"):
        list(verify(release))
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=f"{name}: {len(data) - 1} bytes, expected {len(data)}"):
        list(verify(release))
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        list(verify(release))


def test_an_extra_file_is_named(release: Path) -> None:
    (release / "features/beit3/.more").write_text("?")
    with pytest.raises(UserError, match=r"features/beit3/\.more: not in the manifest"):
        list(verify(release))


def test_what_git_and_the_hub_leave_is_no_extra_file(release: Path) -> None:
    (release / ".gitattributes").write_text("*.parquet filter=lfs")
    (release / ".cache/huggingface").mkdir(parents=True)
    (release / ".cache/huggingface/x.metadata").write_text("")
    assert len(list(verify(release))) == 4


def test_links_are_refused(release: Path, tmp_path: Path) -> None:
    (release / "README.md").rename(tmp_path / "elsewhere.md")
    (release / "README.md").symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(UserError, match=r"README\.md: neither file nor folder"):
        list(verify(release))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../out",
        "a/../../out",
        "./a",
        "a//b",
        "",
        "a\\..\\b",
        "C:x",
        "a\nb",
        "MANIFEST.json",
        "README.MD",
    ],
)
def test_hostile_paths_in_a_manifest_are_refused_before_any_file_is_read(release: Path, path: str) -> None:
    edit(release, lambda m: m["files"].append(m["files"][0] | {"path": path}))
    with pytest.raises(UserError, match="do not trust this release"):
        list(verify(release))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=6, news=1), "format 6, and this alignrec reads up to 5"),
        (lambda m: m.update(format=2), "format 2, and this alignrec reads from 3 on; publish it again"),
        (lambda m: m.update(extra=1), "'extra'"),
        (lambda m: m["files"][0].update(sha256="short"), r"'files.0.sha256'"),
        (lambda m: m["files"][0].update(bytes=-1), r"'files.0.bytes'"),
        (lambda m: m.pop("dataset"), "'dataset'"),
        (lambda m: m["counts"].update(items=7), "6 rows, expected 7"),
        (
            lambda m: next(f for f in m["files"] if f["table"]).update(rows=7),
            "rows or columns are not as the manifest says",
        ),
    ],
)
def test_a_manifest_that_is_wrong_says_where(release: Path, change: Callable[[dict], None], said: str) -> None:
    edit(release, change)
    with pytest.raises(UserError, match=said):
        list(verify(release))


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(release: Path, text: str) -> None:
    (release / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest"):
        list(verify(release))


def test_a_folder_without_a_manifest_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is this a release folder"):
        list(verify(tmp_path))


def test_ids_that_disagree_between_tables_are_named(release: Path) -> None:
    name = "embeddings/items.parquet"
    table = pq.read_table(release / name)
    rewrite(release, name, table.set_column(1, table.schema.field("asin"), pa.array(["A0", "AX", *"2345"])))
    with pytest.raises(UserError, match=r"row 1: asin 'A1', elsewhere 'AX'|row 1: asin 'AX', elsewhere 'A1'"):
        list(verify(release))


def test_an_edge_to_no_item_is_named(release: Path) -> None:
    name = "graph/beit3/edges.parquet"
    table = pq.read_table(release / name)
    ids = pa.array([6, *table["neighbour_id"].to_pylist()[1:]], pa.int32())
    rewrite(release, name, table.set_column(1, table.schema.field("neighbour_id"), ids))
    with pytest.raises(UserError, match=r"graph/beit3/edges\.parquet: row 0: neighbour_id 6 is no item"):
        list(verify(release))


def test_a_vector_that_is_not_finite_is_named(release: Path) -> None:
    name = "features/beit3/features-00000.parquet"
    table = pq.read_table(release / name)
    x = io.matrix(table["vector"]).copy()
    x[3, 1] = np.nan
    rewrite(release, name, table.set_column(4, table.schema.field("vector"), io.vectors(x)))
    with pytest.raises(UserError, match=r"features-00000\.parquet: column 'vector', row 3"):
        list(verify(release))


def test_the_published_schema_is_the_classes() -> None:
    path = Path(schemas.__file__).with_name("release.schema.json")
    assert path.read_text() == manifest.schema_json()


def test_the_command_needs_no_torch(built: Path) -> None:
    code = (
        f"import sys; from pipeline.release import verify; list(verify({str(built)!r})); print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
