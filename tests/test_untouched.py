"""A stage that has nothing to do says so by the file system alone; whatever is touched, it is asked in earnest."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import untouched
from pipeline.config import document
from pipeline.graph.params import Graph
from pipeline.io import write_bytes
from pipeline.run import Run, perform
from pipeline.stage import Needs, Stage
from stages.params import read

PARAMS = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"


class Shop:
    """A folder with parameters, code, a package and a file of the user's, and a stage that reads another's files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0
        for name in ("params.yaml", "own.csv", "pipeline/graph/search.py", "stages/graph.py", "schemas/tables.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(PARAMS if name == "params.yaml" else "1")
        (folder / "site-packages").mkdir()
        encode = Stage("encode", "", "", Graph, lambda run: write_bytes(run.folder / "features.parquet", b"1"))
        perform(Run("encode", "shop", read(folder / "params.yaml"), Path("outputs")), encode, lambda _: None)
        self.stage = Stage("graph", "", "", Graph, self._main, reads=(encode,), needs=self._needs)

    def _needs(self, _: Run) -> Needs:
        self.asked += 1
        return Needs([Path("own.csv")], [], ["pipeline.io"])

    @staticmethod
    def _main(run: Run) -> None:
        write_bytes(run.folder / "edges.parquet", b"7")

    def ends(self, settings: str = "params.yaml") -> None:
        """Run the stage as `alignrec graph shop` does."""
        run = Run("graph", "shop", read(Path(settings)), Path("outputs"))
        run.settings = document.files(Path(settings))
        perform(run, self.stage, lambda _: None)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    shop = Shop(tmp_path)
    monkeypatch.setattr(untouched, "CODE", tmp_path)
    monkeypatch.setattr(untouched, "IMPORTED_FROM", [str(tmp_path / "site-packages")])
    shop.ends()
    return shop


def flipped(path: Path) -> None:
    """Flip one bit, with size and time of writing as they were."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def again() -> bool:
    return untouched.since_last("graph", "shop")


@pytest.mark.parametrize(
    "touch",
    [
        lambda folder: (folder / "params.yaml").write_text(PARAMS + "graph: {k: 5}\n"),
        lambda folder: (folder / "own.csv").write_text("2"),
        lambda folder: (folder / "own.csv").unlink(),
        lambda folder: (folder / "pipeline/graph/search.py").write_text("2"),
        lambda folder: (folder / "pipeline/more.py").write_text("2"),
        lambda folder: (folder / "site-packages/more.dist-info").mkdir(),
        lambda folder: (folder / "outputs/encode/shop/features.parquet").write_text("2"),
        lambda folder: (folder / "outputs/encode/shop/more.parquet").write_text("2"),
        lambda folder: (folder / "outputs/encode/shop/.stamp").unlink(),
        lambda folder: flipped(folder / "outputs/encode/shop/features.parquet"),
        lambda folder: (folder / "outputs/graph/shop/edges.parquet").unlink(),
        lambda folder: flipped(folder / "outputs/graph/shop/edges.parquet"),
        lambda folder: (folder / "outputs/graph/shop/run.json").unlink(),
        lambda folder: (folder / "outputs/graph/shop/.stamp").write_text("{"),
        lambda folder: (folder / "outputs/graph/shop/.stamp").unlink(),
    ],
    ids=["params", "own", "own gone", "code", "more code", "package", "input", "more input", "input's stamp",
         "input's bit", "made", "bit", "record", "broken", "stamp"],
)  # fmt: skip
def test_what_is_touched_is_noticed(shop: Shop, touch: Callable[[Path], object]) -> None:
    assert again()
    touch(shop.folder)
    assert not again()


def test_the_mode_that_dvc_sets_is_no_change(shop: Shop) -> None:
    for name in ("encode/shop/features.parquet", "graph/shop/edges.parquet"):
        (shop.folder / "outputs" / name).chmod(0o600)
    assert again()


def test_what_was_touched_without_effect_is_asked_about_once(shop: Shop) -> None:
    asked = shop.asked
    (shop.folder / "pipeline/graph/search.py").touch()
    assert not again()
    shop.ends()
    assert shop.asked == asked + 1
    assert again()


@pytest.mark.parametrize("name", ["params.yaml", "own.csv", "pipeline/graph/search.py"])
def test_what_changes_while_a_stage_runs_is_noticed_after_it(shop: Shop, name: str) -> None:
    def main(run: Run) -> None:
        (shop.folder / name).write_text(PARAMS + "graph: {k: 5}\n")

    shop.stage = replace(shop.stage, main=main)
    (shop.folder / "outputs/graph/shop/.stamp").unlink()  # so that it runs
    shop.ends()
    assert not again()


def test_other_parameters_are_no_default(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop.folder / "other.yaml").write_text("extends: params.yaml\n")
    monkeypatch.setenv("ALIGNREC_PARAMS", "other.yaml")
    assert not again()
    (shop.folder / "own.csv").write_text("2")  # so that it runs
    shop.ends("other.yaml")
    assert again()
    monkeypatch.delenv("ALIGNREC_PARAMS")
    assert not again()


def test_a_stage_that_looks_is_asked(shop: Shop) -> None:
    shop.stage = replace(shop.stage, looks=True)
    (shop.folder / "own.csv").write_text("2")
    shop.ends()
    assert not again()


def test_nothing_to_do_loads_no_library(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline import untouched; from stages.__main__ import main; "
        "untouched.since_last = lambda stage, dataset: (stage, dataset) == ('graph', 'shop'); main(); "
        "print({'pydantic', 'typer', 'numpy', 'yaml', 'importlib.metadata'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, "graph", "shop"], capture_output=True, text=True, check=True)
    assert done.stdout == f"graph shop: {untouched.NOTHING}\nset()\n"


@pytest.mark.parametrize("arguments", [["graph"], ["graph", "shop", "--help"], ["no-such", "shop"]])
def test_all_else_goes_to_the_command(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "stages", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert "Usage: python -m stages" in done.stdout + done.stderr
