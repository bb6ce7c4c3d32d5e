"""User-defined encoders in the stage: kills, changes, reuse of rows, failures and clusters."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub import hub as serving
from shop import featured, toy
from shop.featured import ITEMS, Item, catalogue, item
from torch import Tensor

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.features import batching
from alignrec.pipeline.features.folder import Facts, FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import device
from alignrec.pipeline.release.loading import Project, facts_here, load_encoder
from alignrec.pipeline.runtime import cluster
from alignrec.pipeline.runtime.layout import Layout


@contextmanager
def hidden(*folders: Path) -> Iterator[None]:
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}.hidden"))
    try:
        yield
    finally:
        for folder in folders:
            folder.with_name(f"{folder.name}.hidden").rename(folder)


def hide_folders(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> list[Any]:
    """Hide folders from the workers of `cluster.run_jobs`; return the list to which its jobs are added."""
    pickle, jobs_done = pytest.importorskip("cloudpickle"), list[Any]()

    def run_jobs(
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

    monkeypatch.setattr(cluster, "run_jobs", run_jobs)
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
    with suppress(KeyboardInterrupt), toy.stopped(at + 1):
        featured.stage(layout, given)
        return False
    return True


@pytest.mark.parametrize("name", [pytest.param("two", marks=pytest.mark.slow), "tfidf"])
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
        hide_folders(monkeypatch, layout.root)

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


def test_only_what_changes_vectors_is_in_the_fingerprint(layout: Layout, models: Path) -> None:
    def fingerprint(**changed: Any) -> dict[str, Any]:
        text = {"kind": "huggingface", "model": str(models / "bert"), **changed}
        featured.stage(layout, params(models, "text", text=text))
        facts = FeatureSet.of(layout, "text").facts
        assert facts.settings["trained_on"] == changed.get("trained_on")
        assert facts.model.get("trained_on") == changed.get("trained_on")
        assert facts.model["pooling"] == changed.get("pooling", "mean")
        return dict(facts.fingerprint)

    usual = fingerprint()
    assert usual.keys().isdisjoint({"options", "pooling", "precision", "task", "trained_on"})
    assert fingerprint(trained_on="unknown") == usual
    assert fingerprint(pooling="cls") == usual | {"pooling": "cls"}
    options = {"model": {"attn_implementation": "eager"}, "processing": {}}
    assert fingerprint(options=options) == usual | {"options": options}


def test_the_stage_says_what_it_did_to_texts(layout: Layout, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    featured.stage(layout, params(models, "text"))
    assert "text: pooling mean, prompt 'item: '\n" in capsys.readouterr().out


# --- precision that the processor decides


def answer(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    """Answer whether the processor is fast at bfloat16."""
    monkeypatch.setattr(device, "is_bf16_fast", lambda _: is_fast)


def auto(models: Path) -> dict[str, Any]:
    return {"kind": "huggingface", "model": str(models / "bert"), "precision": "auto"}


def test_auto_is_recorded_as_what_it_was_and_leaves_the_space_as_it_is(
    layout: Layout, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(**given: Any) -> tuple[np.ndarray, Facts]:
        featured.stage(layout, params(models, "text", text=auto(models) | given))
        return featured.vectors(layout, "text"), FeatureSet.of(layout, "text").facts

    exact, usual = made(precision="float32")
    assert "precision" not in usual.model
    for precision in ("float32", "bfloat16"):
        answer(monkeypatch, precision == "bfloat16")
        vectors, facts = made()
        assert f"text: precision {precision}, pooling mean\n" in capsys.readouterr().out
        assert (facts.settings["precision"], facts.model["precision"]) == ("auto", precision)
        assert facts.fingerprint == usual.fingerprint
        assert (vectors == exact).all() == (precision == "float32")
        shard = FeatureSet.of(layout, "text").shards[0]
        assert json.loads(pq.read_schema(shard).metadata[b"alignrec"])["encoder"]["precision"] == precision


def test_a_run_that_another_processor_resumes_starts_again(
    layout: Layout, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = params(models, "text", text=auto(models))
    answer(monkeypatch, False)
    expected = featured.stage(layout, given)
    for folder in ("encode", ".work"):
        shutil.rmtree(layout.root / folder)

    answer(monkeypatch, True)
    assert killed(layout, given, 3)
    answer(monkeypatch, False)
    assert featured.stage(layout, given) == expected


def test_a_stored_encoder_takes_the_precision_of_its_own_processor(
    layout: Layout, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = toy.params(
        encode={"encoders": ["text", "minilm"]},
        encoders={"text": auto(models)},
        beit3={"sets": []},
        combine={"sets": {"both": {"kind": "concat", "of": ["text", "minilm"]}}, "controls": []},
    )
    answer(monkeypatch, True)
    featured.stage(layout, given)
    stored = featured.vectors(layout, "text")

    answer(monkeypatch, False)
    project = Project(layout)
    assert facts_here(project, "text").model["precision"] == "float32"
    text, minilm = facts_here(project, "both").model["parts"]
    assert (text["name"], text["precision"]) == ("text", "float32")
    assert "precision" not in minilm
    assert facts_here(project, "minilm") == project.facts("minilm")

    texts = [text for text in TEXTS if text]
    encoder = load_encoder(project, "text").encoder
    vectors = batching.encode_items(encoder, texts, [None] * len(texts), 2).vectors
    featured.stage(layout, params(models, "text", text=auto(models)))
    here = featured.vectors(layout, "text")
    present = here.any(axis=1)
    np.testing.assert_allclose(vectors, here[present], atol=1e-6)
    lengths = np.linalg.norm(stored[present], axis=1) * np.linalg.norm(vectors, axis=1)
    cosines = (stored[present] * vectors).sum(axis=1) / lengths
    assert 0.99 < cosines.min() < 1


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
        jobs = hide_folders(monkeypatch, layout.root, local, tmp_path / "cache")
        assert featured.stage(layout, params(models, "hub", "two", "tfidf", engine="ray", **more)) == here
    assert len(jobs) == 3 * -(-len(TEXTS) // 3)


# --- rows that are reused, and batches without room in memory


CHANGES: dict[str, tuple[list[Item], int]] = {
    "a-text": ([*ITEMS[:6], ITEMS[6]._replace(text="another"), *ITEMS[7:]], 1),
    "an-image": ([*ITEMS[:7], ITEMS[7]._replace(colour="pink"), *ITEMS[8:]], 1),
    "two-at-the-front": ([item(90), item(91), *ITEMS], 2),
    "five-deleted": (ITEMS[5:], 0),
    "another-order": (ITEMS[::-1], 0),
    "another-name": ([ITEMS[0]._replace(asin="B0"), *ITEMS[1:]], 0),
}
"""items, and how many of them are encoded"""
MORE = CHANGES["two-at-the-front"][0]


def reusing(model: Path, reuse: bool = True, **own: object) -> Params:
    encode = {"encoders": ["net"], "shard_rows": 4, "batch_size": 2, "reuse": reuse}
    net = {"kind": "huggingface", "model": str(model), **own}
    return toy.params(encode=encode, encoders={"net": net}, beit3={"sets": []}, combine={"sets": {}, "controls": []})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.siglip(tmp_path_factory.mktemp("network"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of items that the network encoded, per file."""
    given, encode = list[int](), batching.encode_items

    def noting(encoder: Any, texts: Any, *more: Any, **named: Any) -> batching.Encoded:
        given.append(len(texts))
        return encode(encoder, texts, *more, **named)

    monkeypatch.setattr(batching, "encode_items", noting)
    return given


@pytest.fixture(scope="module")
def stored(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a shop with reusable rows; tests change copies."""
    layout = catalogue(tmp_path_factory.mktemp("stored"), ITEMS)
    featured.stage(layout, reusing(model))
    return layout.root


@pytest.fixture
def shop(stored: Path, tmp_path: Path) -> Layout:
    return Layout(shutil.copytree(stored, tmp_path / "shop"), "shop")


@pytest.fixture(scope="module")
def fresh(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Layout]:
    """Encode items without reuse, once for all tests."""

    @cache
    def encode(*items: Item) -> Layout:
        layout = catalogue(tmp_path_factory.mktemp("fresh"), [*items])
        featured.stage(layout, reusing(model, reuse=False))
        return layout

    return encode


def assert_equal_rows(layout: Layout, fresh: Layout) -> None:
    np.testing.assert_allclose(featured.vectors(layout, "net"), featured.vectors(fresh, "net"), atol=1e-5)
    rows, expected = (io.read_features(one.features("net")).drop_columns("vector") for one in (layout, fresh))
    assert rows.to_pydict() == expected.to_pydict()
    texts, wanted = (io.read_json(one.run_record("encode", "net"))["notes"] for one in (layout, fresh))
    assert texts == wanted


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_new_alone_is_encoded(
    shop: Layout, fresh: Callable[..., Layout], model: Path, encoded: list[int], change: str
) -> None:
    items, new = CHANGES[change]
    before = dict(zip(ITEMS, featured.vectors(shop, "net"), strict=True))
    featured.stage(catalogue(shop.root, items), reusing(model))
    assert sum(encoded) == new
    for one, vector in zip(items, featured.vectors(shop, "net"), strict=True):
        np.testing.assert_array_equal(vector, before.get(one, vector))
    assert_equal_rows(shop, fresh(*items))


@pytest.mark.parametrize("what", ["network", "setting", "version", "processor"])
def test_rows_of_another_network_setting_version_or_processor_are_not_reused(
    shop: Layout, model: Path, what: str, encoded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = reusing(networks.clip(tmp_path / "clip") if what == "network" else model)
    if what == "setting":
        given = reusing(model, join="concat")
    if what == "processor":
        given = reusing(model, precision="auto")
        answer(monkeypatch, False)
        featured.stage(shop, given)
        encoded.clear()
        answer(monkeypatch, True)
    if what == "version":
        monkeypatch.setattr("alignrec.pipeline.runtime.run.versions", lambda: {"torch": "3"})
    featured.stage(catalogue(shop.root, MORE), given)
    assert sum(encoded) == len(MORE)


@pytest.mark.parametrize("column", ["key", "vector"])
def test_rows_of_a_damaged_file_are_not_reused(
    shop: Layout, fresh: Callable[..., Layout], model: Path, encoded: list[int], column: str
) -> None:
    path = next(shop.rows.glob("*/*.parquet"))
    columns = map(pq.read_metadata(path).row_group(0).column, range(4))
    page = next(one for one in columns if one.path_in_schema.split(".")[0] == column)
    data = bytearray(path.read_bytes())
    start = page.dictionary_page_offset or page.data_page_offset
    data[start + page.total_compressed_size - 5] ^= 1
    path.write_bytes(data)
    featured.stage(catalogue(shop.root, MORE), reusing(model))
    assert sum(encoded) in (2 + 2, 2 + 4), "two new ones, and those of one file"
    assert_equal_rows(shop, fresh(*MORE))


def test_an_encoder_has_a_batch_size_of_its_own(shop: Layout, model: Path) -> None:
    usual = io.read_json(shop.features("net") / "set.json")
    featured.stage(shop, reusing(model, reuse=False, batch_size=3))
    own = io.read_json(shop.features("net") / "set.json")
    assert (usual["batch_size"], own["batch_size"]) == (2, 3)
    assert own["fingerprint"] == usual["fingerprint"], "it changes results only by rounding"


# --- out of memory


WORDS = [f"{i} words" for i in range(10)]


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def on_the_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def in_python() -> None:
    raise MemoryError


def otherwise() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Narrow:
    """A text encoder whose memory holds `most` items."""

    width = 2

    def __init__(self, most: int, end: Callable[[], None] = on_a_gpu) -> None:
        self.most, self.end = most, end
        self.passes: list[int] = []

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        return list(texts or ())

    def encode(self, prepared: Any) -> Tensor:
        self.passes.append(len(prepared))
        if len(prepared) > self.most:
            self.end()
        return torch.tensor([[len(text), sum(map(ord, text))] for text in prepared], dtype=torch.float32)


def encode(encoder: Narrow, size: int, texts: Sequence[str] = WORDS) -> batching.Encoded:
    return batching.encode_items(encoder, texts, [None] * len(texts), size)


@pytest.mark.parametrize("end", [on_a_gpu, on_the_cpu, in_python])
@pytest.mark.parametrize(
    ("most", "size", "says"),
    [
        (3, 4, "memory ran out in a batch of 4; lower batch_size, or give more memory"),
        (0, 1, "memory ran out with one item per forward pass; take a smaller network, or give more memory"),
    ],
)
def test_without_room_for_a_batch_what_to_do_is_said(end: Callable[[], None], most: int, size: int, says: str) -> None:
    assert len(encode(Narrow(4, end), 4).vectors) == len(WORDS)
    with pytest.raises(UserError) as e:
        encode(Narrow(most, end), size)
    assert str(e.value) == says


def test_another_error_is_itself() -> None:
    encoder = Narrow(3, otherwise)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        encode(encoder, 4)
    assert encoder.passes == [4]
