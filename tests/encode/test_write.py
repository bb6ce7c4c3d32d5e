"""User-defined encoders in the stage: kills, changes, failures and clusters."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import featured
import networks
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy
from featured import Item, catalogue
from hub import hub as serving

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.encode import batching
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.harness import cluster
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError


@contextmanager
def hidden(*folders: Path) -> Iterator[None]:
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}.hidden"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name}.hidden").rename(folder)


def spread_without(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> list[Any]:
    """Hide folders from the workers of `cluster.spread`; return the list to which its jobs are added."""
    pickle, jobs_done = pytest.importorskip("cloudpickle"), list[Any]()

    def spread(
        read: Any, make: Any, jobs: Sequence[Any], processors: Any, packages: Sequence[str] = ()
    ) -> Iterator[tuple[Any, pa.Table]]:
        read, make = pickle.loads(pickle.dumps((read, make)))
        work = None
        for job in jobs:
            table = read(job)
            with hidden(*folders):
                work = work or make()
                result = work(job, table)
            jobs_done.append(job)
            yield job, result

    monkeypatch.setattr(cluster, "spread", spread)
    return jobs_done


TEXTS = ["red apple", "", "a blue car", "", "green tree", "bus", "red car"]
COLOURS = ["red", "green", None, None, "blue", None, "red"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of networks."""
    base = tmp_path_factory.mktemp("models")
    for name in ("bert", "siglip"):
        getattr(networks, name)(base / name)
    return base


def write(root: Path, *texts: str) -> Layout:
    return catalogue(root, [Item(f"A{i}", *both) for i, both in enumerate(zip(texts, COLOURS, strict=True))])


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return write(tmp_path / "outputs", *TEXTS)


def params(models: Path, *names: str, engine: str = "local", **changed: dict[str, Any]) -> Params:
    """Return parameters with the named encoders of `text` and `two`, and those of `changed`."""
    defined = {
        "text": {"kind": "huggingface", "model": str(models / "bert"), "prompt": "item: ", "dim": 16},
        "two": {"kind": "huggingface", "model": str(models / "siglip"), "join": "concat"},
    }
    encode = {"encoders": list(names), "shard_rows": 3, "batch_size": 2, "engine": engine}
    own = {"beit3": {"sets": []}, "combine": {"sets": {}, "controls": []}}
    return toy.params(encode=encode, encoders=defined | changed, **own)


def killed(layout: Layout, given: Params, at: int) -> bool:
    """Run the stages until the at-th file is replaced, after which nothing is written, or to the end."""
    replace, times = Path.replace, 0

    def counting(self: Path, target: Path) -> Path:
        nonlocal times
        times += 1
        if times > at:
            raise KeyboardInterrupt
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", counting)
        try:
            featured.stage(layout, given)
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize("name", ["two", "tfidf"])
def test_killed_at_any_file_the_next_run_ends_with_the_same_bytes(layout: Layout, models: Path, name: str) -> None:
    given, at = params(models, name), 0
    expected = featured.stage(layout, given)
    while True:
        again = Layout(layout.root.with_name(f"{at}"), "shop")
        shutil.copytree(layout.root, again.root, ignore=shutil.ignore_patterns("encode", ".work"))
        ended = not killed(again, given, at)
        before = {path: path.stat().st_mtime_ns for path in again.work("encode", name).glob("*.parquet")}
        assert featured.stage(again, given) == expected, at
        assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "what is there stays"
        if ended:
            break
        at += 1
    assert at >= 7, "key and journal, set.json, three shards, and the records"


def test_changed_items_or_settings_are_encoded_again_as_a_new_run_does(
    layout: Layout, models: Path, tmp_path: Path
) -> None:
    made = [featured.stage(layout, params(models, "two"))]
    write(layout.root, *TEXTS[:4], "a green bush", *TEXTS[5:])
    made.append(featured.stage(layout, params(models, "two")))
    mean = {"kind": "huggingface", "model": str(models / "siglip"), "join": "mean"}
    made.append(featured.stage(layout, params(models, "two", two=mean)))
    mean["model"] = str(networks.clip(tmp_path / "clip"))
    made.append(featured.stage(layout, params(models, "two", two=mean)))
    assert len({one["two"] for one in made}) == len(made)
    fresh = write(tmp_path / "fresh", *TEXTS[:4], "a green bush", *TEXTS[5:])
    assert featured.stage(fresh, params(models, "two", two=mean)) == made[-1]


def test_a_set_that_is_listed_no_more_is_deleted(layout: Layout, models: Path) -> None:
    featured.stage(layout, params(models, "text", "tfidf"))
    assert layout.feature_sets() == ["text", "tfidf"]
    featured.stage(layout, params(models, "tfidf"))
    assert layout.feature_sets() == ["tfidf"]


# --- what fails


def test_a_model_that_is_not_there_is_one_line_and_other_sets_stay(layout: Layout, models: Path) -> None:
    wrong = {"kind": "huggingface", "model": "./nowhere"}
    with pytest.raises(UserError) as e:
        featured.stage(layout, params(models, "text", "bad", bad=wrong))
    said = "'encoders.bad.model': no folder './nowhere'; give a folder, or owner/name on the Hugging Face Hub"
    assert str(e.value) == said
    assert layout.feature_sets() == ["text"]


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_whatever_a_third_party_model_raises_is_one_line(
    layout: Layout, models: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "ray":
        spread_without(monkeypatch, layout.root)

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("too\nmany\nlines")

    monkeypatch.setattr(batching, "encode_items", fail)
    with pytest.raises(UserError, match=r"^'encoders\.text': ValueError: too many lines$"):
        featured.stage(layout, params(models, "text", engine=engine))
    with pytest.raises(ValueError, match="too\nmany"):
        featured.stage(layout, params(models, "minilm"))  # a fault of ours is itself


def test_features_and_record_tell_of_the_network_and_of_no_path(layout: Layout, models: Path) -> None:
    featured.stage(layout, params(models, "text", "minilm"))
    about = io.read_json(layout.run_record("encode", "text"))["notes"]["text"]["encoder"]
    model = FeatureSet.of(layout, "text").facts.model
    assert about == model | {"kind": "huggingface", "dim": 16, "model": "bert", "modalities": ["text"],
                             "prompt": "item: "}  # fmt: skip
    assert model["revision"].startswith("sha256:")
    assert "encoder" not in io.read_json(layout.run_record("encode", "minilm"))["notes"]["minilm"]
    for path in FeatureSet.of(layout, "text").shards:
        assert str(models).encode() not in path.read_bytes()
        assert json.loads(pq.read_schema(path).metadata[b"alignrec"])["encoder"] == about


# --- elsewhere


def test_machines_that_see_no_folder_of_this_one_make_the_same_files(
    layout: Layout, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = shutil.copytree(models / "siglip", tmp_path / "siglip")
    more = {
        "hub": {"kind": "huggingface", "model": "someone/net"},
        "two": {"kind": "huggingface", "model": str(local), "join": "mean"},
    }
    with serving(tmp_path / "cache", monkeypatch) as hub:  # a repository
        hub.publish("someone/net", models / "bert")
        here = featured.stage(layout, params(models, "hub", "two", "tfidf", **more))
        for folder in ("encode", ".work"):
            shutil.rmtree(layout.root / folder)
        jobs = spread_without(monkeypatch, layout.root, local, tmp_path / "cache")
        assert featured.stage(layout, params(models, "hub", "two", "tfidf", engine="ray", **more)) == here
    assert len(jobs) == 3 * -(-len(TEXTS) // 3)
