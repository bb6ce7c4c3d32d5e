"""Work folders of feature sets: links out of the project, pipes, and damage to each file of a made set."""

import re
from pathlib import Path

import pytest
import toy
from featured import params, stage

from alignrec.pipeline.io.errors import UserError

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
