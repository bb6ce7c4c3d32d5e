"""Work folders of feature sets: links out of the project, pipes, and damage to each file of a made set."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import alignrec
from shop import toy
from shop.featured import params, stage

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import perform
from alignrec.stages.order import STAGES

PARAMS = params("tfidf", sets={"white": {"kind": "whitened", "of": "tfidf", "width": 2}})
SETS = ("encode/shop/tfidf", "combine/shop/white")


class Linked:
    """A project with made feature sets, and a link in it to a folder or file outside."""

    def __init__(self, root: Path, place: str) -> None:
        self.layout = toy.outputs(root / "outputs")
        stage(self.layout, PARAMS)
        self.made = toy.contents(self.layout.root)

        self.thesis = root / "thesis"
        (self.thesis / "linear").mkdir(parents=True)
        for name in ("chapter.tex", "features-00000.parquet", "linear/features-00000.parquet"):
            (self.thesis / name).write_text("ten years of work")
        self.before = toy.contents(self.thesis)

        self.path = self.layout.root / place
        self.away = root / "away"
        if self.path.exists():
            self.path.rename(self.away)
        is_file = self.path.suffix in (".lock", ".sha256")
        self.path.symlink_to(self.thesis / "chapter.tex" if is_file else self.thesis)

    def unharmed(self) -> bool:
        """Return whether the folder outside is as it was, and the feature sets are as they were made."""
        for name in SETS:
            for file, content in toy.contents(self.layout.root / name).items():
                path = self.layout.root / name / file
                if content != self.made[f"{name}/{file}"] or path.is_symlink():
                    return False
        return toy.contents(self.thesis) == self.before


@pytest.mark.parametrize(
    "place",
    [
        *(".work", ".work/encode", ".work/encode/shop", ".work/encode/shop/tfidf", ".work/combine/shop"),
        *("encode", "encode/shop", "encode/shop/tfidf", "combine", "combine/shop"),
    ],
)
def test_a_link_on_the_way_to_a_work_or_output_folder_is_refused(tmp_path: Path, place: str) -> None:
    linked = Linked(tmp_path, place)
    with pytest.raises(UserError, match=f"^{re.escape(str(linked.path))}: a link, [^\n]*$"):
        stage(linked.layout, PARAMS)
    assert toy.contents(linked.thesis) == linked.before
    linked.path.unlink()
    linked.away.rename(linked.path)
    stage(linked.layout, PARAMS)
    assert linked.unharmed()


@pytest.mark.parametrize(
    "place",
    [
        *(".work/encode/shop/.tfidf.lock", ".work/combine/shop/white", ".work/combine/shop/white/encoder"),
        *(".work/combine/shop/white/.sha256", ".work/combine/shop/other", "combine/.shop.new", "combine/.shop.old"),
        *("encode/shop/.tfidf.new", "encode/shop/.tfidf.old", "combine/shop/white"),
    ],
)
def test_a_link_in_a_work_folder_is_deleted_and_not_followed(tmp_path: Path, place: str) -> None:
    linked = Linked(tmp_path, place)
    stage(linked.layout, PARAMS)
    assert linked.unharmed()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)  # in place, as rot: hard links have it, too


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def replace_by_link(path: Path) -> None:
    copy = path.with_name("copy")
    path.rename(copy)
    path.symlink_to(copy)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[Callable[[Path], object]] = [
    *(flip, truncate, Path.unlink, replace_by_folder, replace_by_link, replace_by_pipe)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = toy.outputs(tmp_path_factory.mktemp("made"))
    stage(layout, PARAMS)
    return layout


def copied(layout: Layout, to: Path) -> Layout:
    """Copy a project whose outputs are hard links of the work folder."""
    shutil.copytree(layout.root, to, copy_function=os.link)
    for name in SETS:
        for path in sorted((to / ".work" / name).rglob("*")):
            if path.is_file():
                separate(path, to / path.relative_to(to / ".work"))
    return Layout(to, layout.dataset)


def separate(path: Path, output: Path) -> None:
    """Replace a file by a copy, and the output by a hard link of it."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    if output.exists():
        output.unlink()
        os.link(path, output)


def files_of_sets(layout: Layout) -> list[str]:
    """Return the paths of the files of both feature sets, as outputs and as unfinished work."""
    paths = []
    for folder in (".work", "."):
        for name in SETS:
            paths += [path for path in sorted((layout.root / folder / name).rglob("*")) if path.is_file()]
    return [path.relative_to(layout.root).as_posix() for path in paths]


def outputs_of(layout: Layout) -> dict[str, bytes]:
    contents = {name: toy.contents(layout.root / name) for name in ("encode/shop", "combine/shop")}
    return {f"{name}/{file}": data for name, files in contents.items() for file, data in files.items()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_set_with_a_damaged_file_is_made_again_with_equal_bytes(
    made: Layout, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    expected = outputs_of(made)
    names = files_of_sets(made)
    assert len(names) == 27
    wrong = []
    for number, name in enumerate(names):
        layout = copied(made, tmp_path / str(number))
        damage(layout.root / name)
        stage(layout, PARAMS)
        if outputs_of(layout) != expected:
            wrong.append(name)
    assert not wrong


def perform_combine(layout: Layout) -> None:
    run = Run("combine", layout.dataset, PARAMS, layout.root)
    perform(run, STAGES["combine"], lambda _: None)


@pytest.mark.parametrize("file", ["encoder/maps.safetensors", "encoder/chain.json", "set.json"])
def test_embed_refuses_an_altered_set_of_a_project(
    made: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("items.csv").write_text("id,title\n1,red apple\n2,blue car\n")
    copied(made, tmp_path / "outputs")
    arguments = ("embed", "items.csv", "--encoder", "white", "--to", "vectors")
    assert alignrec(*arguments).exit_code == 0
    shutil.rmtree("vectors")

    path = Path("outputs/combine/shop/white", file)
    if file == "set.json":
        path.write_text(path.read_text().replace('"batch_size": 64', '"batch_size": 65'))
    else:
        flip(path)
    done = alignrec(*arguments)
    assert done.exit_code == 1
    assert f"{path} is not as it was made, and embed reads it; run `alignrec combine shop`" in done.output


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/")])
def test_a_pipe_or_a_link_to_a_folder_in_an_output_is_refused(
    made: Layout, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    layout = copied(made, tmp_path / "outputs")
    toy.ended(layout)
    path = layout.root / "encode/shop/tfidf/features-00002.parquet"
    make(path)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: not a plain file"):
        perform_combine(layout)
