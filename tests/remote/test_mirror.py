"""A root in a bucket gives what a folder gives; jobs share it without sharing a folder; who is killed goes on."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.io import sha256
from pipeline.layout import Layout
from pipeline.registry import installed
from pipeline.remote import bucket, lock, mirror
from pipeline.remote.lock import Lock
from pipeline.remote.mirror import Mirror
from pipeline.remote.objects import Objects
from stages.cli import app
from stages.order import STAGES

PARAMS = """
datasets: [shop]
sources: {shop: {kind: sample, users: 120, items: 40}}
images: {shard_rows: 10}
encode: {encoders: [tfidf], controls: [random], shard_rows: 10}
benchmark: {ks: [10, 20]}
"""
RECORDS = {"run.json", ".stamp", ".sha256"}
"""with seconds or times of files in them, or an order"""
HANGING = """
import time
from pipeline.images import fetcher
whole = fetcher.shard
fetcher.shard = lambda web, items, work, *more: (
    time.sleep(600) if work.name.endswith("2") else whole(web, items, work, *more)
)
from stages.cli import app
app()
"""
"""begins with the first of a part's shards, and never ends"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that goes to a machine, with a folder of its own; it returns that folder."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mirror, "EVERY", 0.1)

    def go(name: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return tmp_path / name

    go("first")
    return go


def alignrec(*args: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, args)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def content(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in RECORDS)
    return {str(p.relative_to(folder)): sha256(p) for p in paths if not p.name.endswith(("lock", ".mirror"))}


def objects(s3: Any, target: str) -> dict[str, str]:
    """Return name -> sha256 of the objects."""
    start = len(target.removeprefix("s3://")) + 1
    names = [name for name in s3.find(target) if name.rpartition("/")[2] not in RECORDS and not name.endswith("lock")]
    return {name[start:]: hashlib.sha256(s3.cat_file(name)).hexdigest() for name in names}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files, interactions and items in a folder."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "params.yaml").write_text(PARAMS)
    for stage in ("download", "interactions", "items"):
        alignrec(stage, "shop", "--params", f"{folder}/params.yaml", "--root", f"{folder}/outputs")
    return folder / "outputs"


@pytest.fixture
def made(s3: Any, target: str, items: Path, machine: Callable[[str], Path]) -> str:
    """Return a bucket with those, as somebody's copy of the folder."""
    s3.put(f"{items}/", f"{target}/", recursive=True)
    return target


def test_jobs_on_machines_of_their_own_of_which_one_is_killed_give_the_bytes_of_one_folder(
    s3: Any, made: str, items: Path, machine: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(items, tmp_path / "outputs")
    for stage in ("images", "encode"):
        alignrec(stage, "shop", "--root", "outputs")
    local = content(tmp_path / "outputs")

    machine("a")
    killed = subprocess.Popen([sys.executable, "-c", HANGING, "images", "shop", "--root", made, "--part", "1/2"])
    while not s3.exists(f"{made}/images/shop/.shards/images-00000/.key"):
        assert killed.poll() is None
        time.sleep(0.1)
    sent = s3.info(f"{made}/images/shop/images-00000.parquet")["LastModified"]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for stage in ("images", "encode"):
        for part in ("1/2", "2/2"):
            machine("another" if (stage, part) == ("images", "1/2") else part[0])
            assert "is there; after all parts run it" in alignrec(stage, "shop", "--root", made, "--part", part)
        mine = machine(f"whole-{stage}")
        alignrec(stage, "shop", "--root", made)
    assert s3.info(f"{made}/images/shop/images-00000.parquet")["LastModified"] == sent, "it is kept"
    assert objects(s3, made) == local
    read = {name: digest for name, digest in local.items() if not name.startswith("images/shop/.shards")}
    assert content(bucket.folders(made) / "0") == read
    assert mine in bucket.folders(made).parents
    assert "nothing to do" in alignrec("encode", "shop", "--root", made)


PICTURED = PARAMS.replace("images: {shard_rows: 10}", "images: {shard_rows: 8}").replace("[tfidf]", "[cnn, tfidf]")
"""files of images of 8 items, files of features of 10"""


@pytest.fixture(scope="module")
def images(items: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "params.yaml").write_text(PICTURED)
    shutil.copytree(items, folder / "outputs")
    alignrec("images", "shop", "--params", f"{folder}/params.yaml", "--root", f"{folder}/outputs")
    return folder / "outputs"


@pytest.fixture
def sent(s3: Any, target: str, images: Path, machine: Callable[[str], Path], tmp_path: Path) -> str:
    """Return a bucket with those, as stages have sent them; `outputs` is such a folder."""
    (tmp_path / "params.yaml").write_text(PICTURED)
    shutil.copytree(images, tmp_path / "outputs")
    for path in (path for path in images.rglob("*") if path.is_file() and path.suffix != ".lock"):
        s3.put_file(str(path), f"{target}/{path.relative_to(images)}", Metadata={"sha256": sha256(path)})
    return target


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the objects that have been fetched, as a list that grows."""
    names: list[str] = []
    fetch = Objects.fetch

    def noted(self: Objects, name: str, path: Path) -> None:
        names.append(name)
        fetch(self, name, path)

    monkeypatch.setattr(Objects, "fetch", noted)
    return names


@pytest.mark.slow
def test_a_part_fetches_what_it_reads_and_the_whole_stage_after_it_one_file_of_images(
    s3: Any, sent: str, machine: Callable[[str], Path], tmp_path: Path, fetched: list[str]
) -> None:
    alignrec("encode", "shop", "--root", "outputs")
    items = io.rows([Layout(tmp_path / "outputs", "shop").items])
    images = {number: f"images/shop/images-{number:05d}.parquet" for number in range(-(-items // 8))}
    for part in (1, 2, 3, 4):
        fetched.clear()
        machine(f"machine {part}")
        alignrec("encode", "shop", "--root", sent, "--part", f"{part}/4")
        rows = [row for row in range(items) if row // 10 % 4 == part - 1]
        own = {images[row // 8] for row in rows} | {images[0]}  # which says how many rows each has
        assert {name for name in fetched if name.startswith("images/shop/images")} == own
        assert len(fetched) == len(set(fetched))
        assert not [name for name in fetched if name.endswith((".png", ".gz", "interactions.parquet", "users.parquet"))]
    fetched.clear()
    machine("machine 1")
    alignrec("encode", "shop", "--root", sent, "--part", "1/4")
    assert fetched == []
    machine("whole")
    alignrec("encode", "shop", "--root", sent)
    assert [name for name in fetched if name.startswith("images/shop/images")] == [images[0]]
    assert objects(s3, sent) == content(tmp_path / "outputs")


def test_a_file_that_has_not_been_read_is_none_for_a_stage_that_reads_all(
    s3: Any, sent: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(PICTURED.replace("cnn, ", ""))
    alignrec("encode", "shop", "--root", sent, "--part", "1/2")
    layout = Layout(bucket.folders(sent) / "0", "shop")
    assert {path.stat().st_size for path in io.shards(layout.images, "images")} == {0}
    for _ in ("of this process", "of another"):
        with bucket.opened(sent, "shop", STAGES["pretrain"]):
            assert content(layout.images) == content(images / "images/shop")
        io.forget()


@pytest.mark.parametrize("by", ["a stage", "somebody"])
def test_what_several_read_of_a_machine_is_fetched_once(
    s3: Any, sent: str, images: Path, fetched: list[str], by: str
) -> None:
    if by == "somebody":  # who copied it with other tools, so that its metadata have no hash
        s3.put(f"{images}/images/", f"{sent}/images/", recursive=True)
    names = ["images/shop/images-00001.parquet", "images/shop/images-00002.parquet"]
    for _ in ("first process", "another"):
        layout = bucket.brought(sent, ["images"], Layout(images, "shop"))
        paths = [layout.root / name for name in names] * 4
        with ThreadPoolExecutor(8) as pool:
            tables = list(pool.map(lambda path: io.read_table(path, schemas.IMAGES), paths))
        assert tables[0].equals(io.read_table(images / names[0], schemas.IMAGES))
        assert sorted(name for name in fetched if name.endswith("parquet")) == names
        io.forget()


def test_what_is_here_is_neither_fetched_nor_hashed_again(
    made: str, machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alignrec("items", "shop", "--root", made)
    monkeypatch.setattr(Objects, "fetch", None)
    monkeypatch.setattr(Objects, "head", None)
    monkeypatch.setattr("hashlib.file_digest", None)
    io.forget()
    assert "nothing to do" in alignrec("items", "shop", "--root", made)
    monkeypatch.undo()


def test_an_object_that_is_gone_or_altered_is_said(s3: Any, made: str, items: Path) -> None:
    where = f"{made}/items/shop/items.parquet"
    whole = s3.cat_file(where)
    s3.pipe_file(where, whole[:-1], Metadata={"sha256": sha256(items / "items/shop/items.parquet")})
    said = alignrec("images", "shop", "--root", made, code=1)
    assert said.startswith(f"error: {where}: its bytes are not those that were sent there; delete that object, and run")
    s3.pipe_file(where, whole[:-1])
    said = alignrec("images", "shop", "--root", made, code=1)
    assert said.startswith(f"error: {where} is not as it was made, and images reads it; run `alignrec items shop`")
    s3.rm_file(where)
    said = alignrec("images", "shop", "--root", made, code=1)
    assert said.startswith(f"error: {where} is gone, and images reads it; run `alignrec items shop`")
    alignrec("items", "shop", "--root", made)
    assert s3.cat_file(where) == whole
    alignrec("images", "shop", "--root", made)
    assert not s3.find(f"{made}/images/shop/.lock")


@pytest.mark.parametrize("since", ["deleted", "made anew"])
@pytest.mark.parametrize(
    ("stage", "name", "said"),
    [
        (
            "encode",
            "images/shop/images-00001.parquet",
            "was deleted or made anew while it was to be read; run again; if it is gone, `alignrec images shop` makes ",
        ),
        ("images", "items/shop/items.parquet", "is gone, and images reads it; run `alignrec items shop`"),
    ],
)
def test_an_object_that_vanishes_while_it_is_read_is_said(
    s3: Any, sent: str, monkeypatch: pytest.MonkeyPatch, since: str, stage: str, name: str, said: str
) -> None:
    fetch, whole = Objects.fetch, s3.cat_file(f"{sent}/{name}")

    def fetched(self: Objects, wanted: str, path: Path) -> None:
        if wanted == name and since == "deleted":
            s3.rm_file(f"{sent}/{name}")
        elif wanted == name:
            s3.pipe_file(f"{sent}/{name}", b"another", Metadata={"sha256": hashlib.sha256(b"another").hexdigest()})
        fetch(self, wanted, path)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "fetch", fetched)
        printed = alignrec(stage, "shop", "--root", sent, "--part", "2/2", code=1)
    assert f"{sent}/{name}" in printed
    assert said in printed
    assert printed.count("\n") == 1
    s3.rm_file(f"{sent}/{name}")
    alignrec(name.partition("/")[0], "shop", "--root", sent)
    assert s3.cat_file(f"{sent}/{name}") == whole
    alignrec(stage, "shop", "--root", sent, "--part", "2/2")


def test_of_stages_that_it_does_not_read_a_stage_has_the_records(
    s3: Any, made: str, machine: Callable[[str], Path]
) -> None:
    with bucket.opened(made, "shop", STAGES["pretrain"]) as (root, *_):
        assert {path.name for path in Layout(root, "shop").raw.iterdir()} == {"run.json", "sources.json"}
        assert Layout(root, "shop").items.is_file()


def test_a_folder_that_is_begun_anew_leaves_nothing_of_the_last_one(
    s3: Any, made: str, machine: Callable[[str], Path], tmp_path: Path
) -> None:
    alignrec("images", "shop", "--root", made)
    before = objects(s3, made)
    machine("other")
    (tmp_path / "params.yaml").write_text(PARAMS.replace("shard_rows: 10}\nenc", "shard_rows: 30, size: 64}\nenc"))
    alignrec("images", "shop", "--root", made, "--part", "1/2")
    after = objects(s3, made)
    shards = [name for name in after if name.endswith(".parquet") and name.startswith("images/")]
    assert shards == ["images/shop/images-00000.parquet"], "parts that were begun with other settings are gone"
    assert after[shards[0]] != before[shards[0]]


def test_a_part_finds_what_another_has_begun_anew(s3: Any, target: str, tmp_path: Path) -> None:
    def part(number: int) -> Mirror:
        place = Objects(target)
        layout = Layout(tmp_path / str(number), "shop")
        return Mirror(place, layout, "images", Lock(place, "images/shop/.lock"), (number, 2))

    first, second = part(1), part(2)
    for key, other in (("old", second), ("new", None)):
        io.begin(first.folder, key)
        io.write_bytes(io.shard(first.folder, "images", 0), key.encode())
        first.send()
        if other:
            other.bring()
    assert io.begun(second.folder, "old")
    with second.alone():
        assert io.begun(second.folder, "new")
    io.write_bytes(io.shard(second.folder, "images", 1), b"new")
    (second.folder / "images-00003.parquet").write_bytes(b"half")
    second.send()
    stored = {name.rpartition("/")[2]: s3.cat_file(name) for name in s3.find(target)}
    assert stored == {".key": b"new", "images-00000.parquet": b"new", "images-00001.parquet": b"new"}


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s3://nobucket/x", "s3://nobucket/x: no such bucket"),
        ("s3://", "s3://: the address names no bucket; write s3://bucket/prefix"),
        ("s3://key:a-secret@bucket", "s3://: the address names no bucket"),
        ("gs://bucket/x", "--root: no outputs can lie at 'gs:'; name a folder, or s3://bucket/prefix"),
        ("s3:/bucket/x", "--root: no outputs can lie at 's3:'"),
    ],
)
def test_a_root_that_is_none_is_said(s3: Any, machine: Callable[[str], Path], root: str, said: str) -> None:
    for command in (["items"], ["encode", "--part", "1/2"]):
        printed = alignrec(command[0], "shop", "--root", root, *command[1:], code=1)
        assert printed.startswith(f"error: {said}")
        assert "a-secret" not in printed


def test_without_rights_it_says_so(made: str, denied: Callable[[], AbstractContextManager[None]]) -> None:
    with denied():
        said = alignrec("items", "shop", "--root", made, code=1)
    assert said.startswith(f"error: {made}: access denied (")
    assert "AWS_ACCESS_KEY_ID" in said


def test_a_machine_that_reads_without_rights_is_named(
    made: str, tmp_path: Path, denied: Callable[[], AbstractContextManager[None]]
) -> None:
    with denied(), pytest.raises(UserError, match=re.escape(f"{platform.node()}: {made}: access denied (")):
        bucket.brought(made, ["items"], Layout(tmp_path, "shop"))


def test_commands_that_are_no_stage_name_the_folder_of_this_machine(made: str, machine: Callable[[str], Path]) -> None:
    alignrec("items", "shop", "--root", made)
    said = alignrec("summary", "shop", "--root", made, code=1)
    folder = bucket.folders(made) / "0"
    assert said.replace("\n", "").endswith(f"what those of this machine read and made is in {folder}")
    assert "interactions" in alignrec("summary", "shop", "--root", str(folder))


def test_two_processes_of_a_machine_have_a_folder_each(s3: Any, target: str, machine: Callable[[str], Path]) -> None:
    with (
        bucket.opened(target, "shop", STAGES["items"]) as (one, *_),
        bucket.opened(target, "shop", STAGES["images"]) as (other, *_),
    ):
        assert (one.name, other.name) == ("0", "1")


# --- the lock


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 1.0)
    monkeypatch.setattr(lock, "POLL", 0.1)


def test_a_lock_is_waited_for_while_its_owner_lives(
    s3: Any, target: str, leases: None, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []

    def other() -> None:
        with Lock(Objects(target), "items/shop/.lock").held():
            ended.append("other")

    with Lock(Objects(target), "items/shop/.lock").held():
        thread = Thread(target=other)
        thread.start()
        time.sleep(2.5)
        ended.append("first")
    thread.join()
    assert ended == ["first", "other"]
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"{target}/items/shop/.lock: process {os.getpid()} of " in said
    assert "if it is gone, delete that object" in said
    assert not s3.exists(f"{target}/items/shop/.lock")


@pytest.mark.parametrize("year", [1970, 2026, 2099])
def test_a_lock_whose_owner_is_gone_is_taken_over_and_its_owner_stops(
    s3: Any, target: str, leases: None, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    class Clock(datetime):
        """The clock of the owner's machine, which may be wrong."""

        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr(lock, "datetime", Clock)
    monkeypatch.setattr(lock, "RENEWALS", 0.01)  # so that nobody renews one
    gone, began = Lock(Objects(target), "items/shop/.lock"), time.monotonic()
    monkeypatch.setattr(lock, "datetime", datetime)
    with gone.held(), Lock(Objects(target), "items/shop/.lock").held():
        assert time.monotonic() - began >= lock.LEASE
        with pytest.raises(UserError, match="lost its lock"):
            gone.check()
    assert not s3.exists(f"{target}/items/shop/.lock")


def test_a_store_that_ignores_conditions_is_refused(s3: Any, target: str, ignorant: None) -> None:
    with (
        pytest.raises(UserError, match="knows no conditional PUT"),
        Lock(Objects(target), "items/shop/.lock").held(),
    ):
        pytest.fail("it is held")
    assert s3.find(target) == []


def test_a_run_whose_lock_was_deleted_ends_and_sends_nothing(
    s3: Any, target: str, leases: None, machine: Callable[[str], Path]
) -> None:
    def work() -> None:
        with bucket.opened(target, "shop", STAGES["items"]) as (root, *_):
            s3.rm_file(f"{target}/items/shop/.lock")
            time.sleep(0.5)  # until it is to be renewed
            path = Layout(root, "shop").items
            path.parent.mkdir(parents=True)
            path.write_bytes(b"late")
            for _ in range(600):
                time.sleep(0.1)

    with pytest.raises(UserError, match="lost its lock"):
        work()
    assert s3.find(target) == []


def test_of_two_who_end_a_stage_the_second_is_refused(s3: Any, target: str, machine: Callable[[str], Path]) -> None:
    folder = machine("here")
    stage = Mirror(Objects(target), Layout(folder, "shop"), "items")
    stage.bring()
    s3.pipe_file(f"{target}/items/shop/.stamp", b"somebody's")
    stage.folder.mkdir(parents=True)
    (stage.folder / ".stamp").write_bytes(b"ours")
    with pytest.raises(UserError, match="another run has ended this stage"):
        stage.send(whole=True)


# --- nodes of a Ray cluster

COLOURS = """
import os, time
from pathlib import Path
import numpy as np
import torch
from pipeline.encode.base import NoSettings, Spec

class Colours:
    width, flops = 3, 0.0

    def lengths(self, texts):
        return np.array([len(text) for text in texts], np.int64)

    def prepare(self, images, texts):
        if (held := os.environ.get("HELD")) and images:
            Path(held).touch()
            time.sleep(600)
        return images, texts

    def encode(self, prepared):
        images, texts = prepared
        bytes = [np.frombuffer(image, np.uint8).mean() for image in images] if images else [0.0] * len(texts)
        return torch.tensor([[b, len(text), 1] for b, text in zip(bytes, texts or [""] * len(bytes))]).float()

COLOURS = Spec(lambda context, own: Colours(), NoSettings)
"""
"""an encoder of another package, which a node keeps from ever ending"""


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    (site / "colours-1.dist-info").mkdir(parents=True)
    (site / "colours.py").write_text(COLOURS)
    (site / "colours-1.dist-info" / "METADATA").write_text("Name: colours\nVersion: 1\n")
    (site / "colours-1.dist-info" / "entry_points.txt").write_text("[alignrec.encoders]\ncolours = colours:COLOURS\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (site, Path(__file__).parents[2]))))
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.fixture
def nodes(colours: None, tmp_path: Path) -> Iterator[Any]:
    """Return a cluster of two nodes that encode, `a` and `b`, with a cache each, and `b`, which ends nothing."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False)
    for name, more in (("a", {}), ("b", {"HELD": str(tmp_path / "held")})):
        env = {"XDG_CACHE_HOME": str(tmp_path / name), "HOME": str(tmp_path / name)} | more
        node = cluster.add_node(num_cpus=torch.get_num_threads(), num_gpus=0, env_vars=env)
    yield cluster, node
    ray.shutdown()
    cluster.shutdown()


def images_at(cache: Path) -> set[str]:
    """Return the files of images that a machine has, stand-ins aside."""
    return {path.name for path in cache.rglob("images/shop/images-*.parquet") if path.stat().st_size}


@pytest.mark.slow
def test_nodes_that_share_no_folder_give_its_bytes_though_one_dies(
    s3: Any, sent: str, machine: Callable[[str], Path], nodes: Any, tmp_path: Path
) -> None:
    given = (tmp_path / "params.yaml").read_text().replace("[cnn, tfidf]", "[colours, white]")
    given += "encoders: {white: {kind: whitened, of: colours}}\n"
    (tmp_path / "params.yaml").write_text(given)
    alignrec("encode", "shop", "--root", "outputs")
    (tmp_path / "params.yaml").write_text(given.replace("encode: {", "encode: {engine: ray, "))
    driver = machine("driver")
    cluster, dies = nodes

    def kill() -> None:
        while not (tmp_path / "held").exists():
            time.sleep(0.1)
        cluster.remove_node(dies, allow_graceful=False)  # kill -9

    killer = Thread(target=kill, daemon=True)
    killer.start()
    alignrec("encode", "shop", "--root", sent)
    killer.join(60)
    assert not killer.is_alive()
    assert objects(s3, sent) == content(tmp_path / "outputs")
    assert images_at(driver) == {"images-00000.parquet"}
    assert len(images_at(tmp_path / "b")) in (2, 3), "the first, and those of one job"
    assert len(images_at(tmp_path / "a")) == 5
    assert not [
        path for path in (tmp_path / "a").rglob("interactions/shop/interactions.parquet") if path.stat().st_size
    ]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("features/features-00001.parquet", True),
        ("features/.key", True),
        ("features/.shards/features-00001/.key", True),
        (".stamp", True),
        ("run.json", True),
        (".sha256", False),
        (".lock", False),
        ("reviews.json.part", False),
        (".blocks/images-00000/.key", False),
        (".blocks/x/.shards/y/.key", False),
        ("../../other/.shards/x/.key", False),
        ("../other", False),
        ("/etc/passwd", False),
        ("a//b", False),
    ],
)
def test_names_that_a_bucket_has(name: str, kept: bool) -> None:
    assert mirror.is_kept(name) == kept
