"""`items.all`: items with too few interactions in features, graph, search and release, not in training and judging."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec, error_line
from shop import featured, releases, toy

import alignrec as api
from alignrec.commands import new as command
from alignrec.commands.own_data import Given
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import Counts
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.schemas import ITEM_IDS, ITEMS
from alignrec.stages.order import STAGES as ORDERED

USERS, CORE, COLD = 40, 27, 9
COLOURS = ["red", "green", "blue", "grey", "white", "yellow"]
WORDS = ["lamp", "chair", "table", "shelf", "sofa", "rug", "bed"]
SHARED = {
    "encode": {"encoders": ["tfidf", "descriptors"], "shard_rows": 10},
    "beit3": {"sets": []},
    "combine": {"sets": {"linear": {"width": 8}}, "controls": ["random"]},
    "graph": {"k": 5},
    "semantic_ids": {"features": ["linear"], "levels": 2, "codes": 8},
    "images": {"folder": "pictures", "pattern": "{item}.jpg", "shard_rows": 10},
    "train": {"features": "linear", "dim": 8, "batch_size": 64, "epochs": 2},
    "probe": {"ks": [5]},
    "benchmark": {"ks": [5]},
    "publish": {"features": ["linear", "tfidf"], "interactions": True, "users": "names"},
}
STAGES = ("download", "interactions", "items", "images")
RELEASED = ("graph", "semantic_ids", "train", "probe", "publish")


def asin(number: int) -> str:
    """Return the identifier of an item; those of cold ones sort between those of others."""
    return f"p{number:02}"


def is_cold(number: int) -> bool:
    return number % 4 == 1


def title(number: int) -> str:
    return f"{COLOURS[number % 6]} {WORDS[number % 7]} {WORDS[(number + 3) % 7]} {number % 3}"


def write_shop(missing: Sequence[int] = ()) -> None:
    """Write items.jsonl, ratings.csv and pictures of CORE items with interactions and COLD with one or none."""
    numbers = [n for n in range(CORE + COLD) if n not in missing]
    rows = [{"item": asin(n), "title": title(n) if n % 5 else ""} for n in numbers]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("pictures").mkdir(exist_ok=True)
    for n in numbers:
        if n % 3:
            Path("pictures", f"{asin(n)}.jpg").write_bytes(pictures.plain(COLOURS[n % 6]))
    with Path("ratings.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user", "item", "timestamp"])
        for n in range(CORE + COLD):
            times = n % 2 if is_cold(n) else 12
            out.writerows([f"u{(7 * n + 3 * t) % USERS}", asin(n), 1_700_000_000 + 60 * n + t] for t in range(times))


def params(whole: bool = True, **sections: Any) -> Parameters:
    source = {"kind": "tabular", "interactions": "ratings.csv", "items": "items.jsonl"}
    own = SHARED | {"sources": {"shop": source}, "interactions": {"user_core": 2, "item_core": 2}}
    own |= {"datasets": ["shop"], "items": {"all": True} if whole else {}} | sections
    Path("params.yaml").write_text(yaml.safe_dump(own))
    return load(Path("params.yaml"), "shop")


def make(root: Path, given: Parameters, stages: Sequence[str] = RELEASED) -> Layout:
    layout = Layout(root, "shop")
    for stage in [*STAGES, *stages]:
        if not ORDERED[stage].resumes:  # as `perform` does
            shutil.rmtree(layout.work(stage), ignore_errors=True)
    for stage in STAGES:
        toy.run(stage, given, root)
    featured.stage(layout, given)
    for stage in stages:
        toy.run(stage, given, root)
    return layout


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "has_gpu", lambda: False)


def _write_both(root: Path) -> None:
    root.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_shop()
        for name, whole in (("core", False), ("whole", True)):
            make(root / name, params(whole))


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Return a folder with the shop's files, and outputs `core` and `whole` without and with `items.all`."""
    shutil.copytree(toy.made(_write_both), tmp_path, dirs_exist_ok=True)
    return tmp_path


COLD_ASINS = [asin(n) for n in range(CORE + COLD) if is_cold(n)]


def test_stages_that_train_and_judge_are_as_without(both: Path) -> None:
    core, whole = (Layout(both / name, "shop") for name in ("core", "whole"))
    for stage in ("interactions", "train", "probe"):
        for path, content in toy.contents(core.out(stage)).items():
            if not path.endswith(".json"):
                assert (whole.out(stage) / path).read_bytes() == content, path
    assert io.read_json(core.probes) == io.read_json(whole.probes)
    names = [*core.feature_sets()]
    assert names == whole.feature_sets() == ["descriptors", "linear", "random", "tfidf"]
    for name in names:
        vectors = [io.read_features(of.features(name)) for of in (core, whole)]
        assert vectors[0].equals(vectors[1])
        assert io.read_table(core.edges(name), api.schemas.EDGES).equals(
            io.read_table(whole.edges(name), api.schemas.EDGES)
        )
    assert not list(both.glob("core/**/further*"))
    assert not list(both.glob("core/**/catalogue*"))


def test_the_release_has_all_items_core_first(both: Path) -> None:
    layout = Layout(both / "whole", "shop")
    core = io.read_table(layout.item_ids, ITEM_IDS)["asin"].to_pylist()
    assert len(core) == CORE
    further = io.read_table(layout.further_items, ITEMS)
    assert further["asin"].to_pylist() == COLD_ASINS
    assert further["item_id"].to_pylist() == [*range(CORE, CORE + COLD)]

    release = api.load(layout.release)
    assert release.info.counts.model_dump() == {"users": USERS, "items": CORE + COLD, "interactions": 324, "core": CORE}
    expected = [*core, *COLD_ASINS]
    assert release.items["asin"].to_pylist() == expected
    title_of = {asin(n): title(n) if n % 5 else "" for n in range(CORE + COLD)}
    assert release.items["title"].to_pylist() == [title_of[name] for name in expected]
    assert [*release.features["linear"].ids] == expected
    assert release.graph["linear"].shape == (CORE + COLD, CORE + COLD)
    assert release.semantic_ids("linear")["asin"].to_pylist() == expected
    assert [*release.item_embeddings.ids] == core
    codes = io.read_codes(layout.codes("linear"))
    assert release.semantic_ids("linear").slice(0, CORE)["codes"].equals(codes["codes"])
    card = (layout.release / "README.md").read_text()
    assert f"| of them with interactions, the first ones | {CORE} |" in card
    assert f"{CORE} of the items have interactions" in alignrec("verify", str(layout.release)).stdout


@pytest.mark.parametrize("name", ["linear", "tfidf"])
def test_cold_items_have_the_vectors_that_embed_gives(both: Path, name: str) -> None:
    release = Path(shutil.copytree(Layout(both / "whole", "shop").release, both / "copy"))
    words = ["--release", str(release), "--encoder", name, "--images", "pictures", "--to", "new"]
    done = alignrec("embed", "items.jsonl", *words)
    assert done.exit_code == 0, done.output
    rows = pa.concat_tables(pq.read_table(path) for path in sorted(Path("new").glob("*.parquet")))
    released = api.load(release).features[name]
    for item, vector in zip(rows[0].to_pylist(), io.matrix(rows["vector"]), strict=True):
        np.testing.assert_allclose(released.of(item), vector, atol=1e-5)


def test_a_release_is_judged_on_its_core_and_shown_whole(both: Path) -> None:
    release = Release(Layout(both / "whole", "shop").release)
    with unpack_release(release, ["interactions"]) as layout:
        assert len(io.read_table(layout.item_ids, ITEM_IDS)) == CORE
        assert len(io.read_features(layout.features("linear"))) == CORE
        assert not layout.edges("linear").exists()  # it has other items
    with unpack_release(release, whole=True) as layout:
        assert len(io.read_table(layout.items, ITEMS)) == CORE + COLD
        assert len(io.read_features(layout.features("linear"))) == CORE + COLD
        assert layout.edges("linear").exists()


def test_an_export_of_all_sets_leaves_out_controls(both: Path) -> None:
    done = alignrec("export", "shop", "--format", "npy", "--to", "to", "--root", str(both / "whole"))
    assert done.exit_code == 0, done.output
    assert "Sets left out, as they lack the items that items.all adds: random." in Path("to/README.md").read_text()
    assert sorted(path.name for path in Path("to").glob("*.npy")) == ["descriptors.npy", "linear.npy", "tfidf.npy"]


@pytest.mark.parametrize(
    ("form", "rows"),
    [("npy", CORE + COLD), ("mmrec", CORE)],
)
def test_exports_for_search_have_all_items_and_those_for_training_the_core(both: Path, form: str, rows: int) -> None:
    layout = Layout(both / "whole", "shop")
    for what, to in ((str(layout.release), "of-release"), ("shop", "of-dataset")):
        sets = ["--features", "linear"]
        done = alignrec("export", what, "--format", form, "--to", to, *sets, "--root", str(both / "whole"))
        assert done.exit_code == 0, done.output
        assert f"\n{rows} items" in Path(to, "README.md").read_text()
    left, right = (toy.contents(Path(to)) for to in ("of-release", "of-dataset"))
    vectors = [name for name in left if name.endswith(".npy")]
    assert [left[name] for name in vectors] == [right[name] for name in vectors]


def test_sets_without_vectors_of_these_items_are_refused(both: Path) -> None:
    given = params(publish={"features": ["linear", "random"]})
    with pytest.raises(UserError, match=r"random has no vectors of the items that items\.all adds; leave it out"):
        toy.run("publish", given, both / "whole")


def test_a_graph_of_before_is_refused(both: Path) -> None:
    path = Layout(both / "whole", "shop").catalogue_edges("tfidf")
    path.unlink()
    with pytest.raises(UserError, match=r"edges\.parquet: lacks the items of items\.all; run `dvc repro`"):
        toy.run("publish", params(), both / "whole")


def test_another_item_makes_what_depends_on_it_again(both: Path) -> None:
    write_shop(missing=[1])
    Path("pictures", "p01.jpg").unlink()
    again = make(both / "whole", params())
    fresh = make(both / "fresh", params())
    before, after = (toy.contents(of.release) for of in (again, fresh))
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert Release(again.release).manifest.counts.items == CORE + COLD - 1
    # without the key nothing of it is left
    plain = make(both / "whole", params(whole=False))
    assert Release(plain.release).manifest.counts.core is None
    assert [*(both / "whole").rglob("further*")] == []


def test_released_encoders_and_feature_files_cover_all_items(both: Path) -> None:
    older = Path(shutil.copytree(Layout(both / "core", "shop").release, both / "older"))
    names = [asin(n) for n in range(CORE + COLD)]
    drawn = np.random.default_rng(0).normal(size=(CORE + COLD, 3)).astype(np.float32)
    pq.write_table(pa.table({"item": names[::-1], "vector": io.vectors(drawn[::-1])}), "mine.parquet")
    np.save("rows.npy", drawn)
    Path("rows.csv").write_text("item,row\n" + "\n".join(f"{name},{row}" for row, name in enumerate(names)))
    source = {"kind": "tabular", "interactions": "ratings.csv", "items": "items.jsonl", "feature_rows": "rows.csv"}
    source |= {"features": {"mine": "mine.parquet", "rows": "rows.npy"}}
    given = params(
        sources={"shop": source},
        encode={"encoders": ["tfidf", "linear"], "shard_rows": 10},
        encoders={name: {"kind": "released", "model": str(older), "encoder": name} for name in ("tfidf", "linear")},
        combine={"sets": {}, "controls": []},
        publish={"features": ["linear", "tfidf", "mine", "rows"]},
        semantic_ids={"features": ["mine"], "levels": 2, "codes": 8},
    )
    release = api.load(make(both / "outputs", given, ("graph", "semantic_ids", "publish")).release)
    for row, name in enumerate(names):
        for imported in ("mine", "rows"):
            np.testing.assert_array_equal(release.features[imported].of(name), drawn[row])
    whole = api.load(Layout(both / "whole", "shop").release)
    for name in ("tfidf", "linear"):
        np.testing.assert_allclose(release.features[name], whole.features[name], atol=1e-5)


def test_codebooks_of_a_release_keep_the_ids_of_all_items(both: Path) -> None:
    layout = Layout(both / "whole", "shop")
    older = Path(shutil.copytree(layout.release, both / "older"))
    before = io.read_codes(older / "semantic_ids/linear/codes.parquet")
    toy.run("semantic_ids", params(semantic_ids={"features": ["linear"], "codebooks": "older"}), both / "whole")
    after = io.read_codes(layout.catalogue_codes("linear"))
    for column in ("asin", "codes", "suffix"):
        assert after[column].equals(before[column])


def test_new_names_the_items_and_the_key() -> None:
    write_shop()
    _, seen = command.describe_files(Given("shop", Path("ratings.csv"), Path("items.jsonl"), "pictures"))
    text = "\n".join(seen)
    assert f"{COLD} items of items.jsonl have too few interactions: `items: {{all: true}}` keeps them" in text


def test_a_source_without_an_item_file_is_refused(tmp_path: Path) -> None:
    write_shop()
    source = {"kind": "tabular", "interactions": "ratings.csv"}
    given = params(sources={"shop": source}, images={}, encode={"encoders": ["tfidf"]})
    for stage in ("download", "interactions"):
        toy.run(stage, given, tmp_path / "outputs")
    with pytest.raises(UserError, match=r"'items.all': shop has no item file, .*; leave it out"):
        toy.run("items", given, tmp_path / "outputs")


@pytest.mark.parametrize("core", [0, 7])
def test_counts_of_a_manifest_that_contradict_each_other_are_refused(core: int) -> None:
    with pytest.raises(ValueError, match="core is"):
        Counts(users=1, items=6, interactions=2, core=core)


@pytest.mark.parametrize(
    ("table", "fault"), [("features/tfidf", "asin"), ("semantic_ids/linear", "asin"), ("embeddings/items", "asin")]
)
def test_a_release_whose_rows_are_of_other_items_is_refused(both: Path, table: str, fault: str) -> None:
    folder = Path(shutil.copytree(Layout(both / "whole", "shop").release, both / "damaged"))
    path = sorted([*folder.glob(f"{table}*.parquet"), *folder.glob(f"{table}/*.parquet")])[-1]
    releases.rewrite(path, "asin", lambda names: [names[1], names[0], *names[2:]])
    releases.relist(folder, path.relative_to(folder).as_posix())
    line = error_line(alignrec("verify", str(folder)))
    assert fault in line
    assert "elsewhere" in line


def test_a_core_larger_than_its_vectors_is_refused(both: Path) -> None:
    folder = Path(shutil.copytree(Layout(both / "whole", "shop").release, both / "damaged"))
    releases.edit(folder, lambda content: content["counts"].update(core=CORE + 1))
    assert f"embeddings/items.parquet: {CORE} rows, expected {CORE + 1}" in error_line(alignrec("verify", str(folder)))


def test_vectors_are_rounded_whole(both: Path) -> None:
    toy.run("publish", params(publish={"features": ["linear"], "vectors": "float16"}), both / "whole")
    release = Release(Layout(both / "whole", "shop").release).verify()
    assert len(release.features("linear")) == CORE + COLD
    shards = (release.folder / "features/linear").glob("*.parquet")
    assert {pq.read_schema(path).field("vector").type.value_type for path in shards} == {pa.float16()}
