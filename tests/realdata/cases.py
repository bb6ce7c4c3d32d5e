"""The real datasets: parameters, paths of outputs, and reuse among them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignrec.pipeline import io
from alignrec.pipeline.runtime import yaml_files
from alignrec.pipeline.runtime.layout import Layout

HERE = Path(__file__).parent
NAMES = (
    *("gift_cards", "industrial", "tiktok", "baby"),
    *("movies", "movies_liked", "movies_cold", "movies_sparse"),
    *("movies_content", "movies_content_few", "movies_content_cold"),
    *("industrial_content", "industrial_content_few", "industrial_content_cold"),
)
VARIANTS = {
    f"{base}_{overlay}": (base, overlay)
    for base, overlays in {
        "movies": ("liked", "cold", "sparse"),
        "movies_content": ("few", "cold"),
        "industrial_content": ("few", "cold"),
    }.items()
    for overlay in overlays
}
"""dataset -> the one that it is a variant of, and the file with the differences"""
ADOPTED = ("download", "items", "images", "encode", "pretrain", "beit3", "combine", "graph")
"""stages whose outputs a variant starts with; those with the same inputs are not rerun"""


def made_at(layout: Layout, stage: str) -> float:
    """Return when a stage, or its last item, ended; 0 if it has not."""
    return max((path.stat().st_mtime for path in layout.folder(stage).rglob(io.RECORD)), default=0)


@dataclass(frozen=True)
class Case:
    """One real dataset."""

    name: str
    params: Path
    layout: Layout
    base: Layout | None  # of the dataset whose outputs it reuses where inputs are the same

    def adopt(self, stage: str) -> None:
        """Start a stage with the outputs of `base` if those are newer."""
        if self.base is None or stage not in ADOPTED or not (theirs := made_at(self.base, stage)):
            return
        if made_at(self.layout, stage) < theirs:
            shutil.rmtree(self.layout.folder(stage), ignore_errors=True)
            shutil.copytree(self.base.folder(stage), self.layout.folder(stage))


def cases(root: Path) -> dict[str, Case]:
    """Return all by name; parameter files of variants are written under `root`.

    Seeds come from the dataset's name, so that equal inputs give equal outputs: a variant has a root of its own.
    """
    made = {}
    for name in NAMES:
        base, overlay = VARIANTS.get(name, (None, name))
        path = HERE / f"{overlay}.yaml"
        sections = _read(path)
        if base is not None:
            sections = _read(HERE / f"{base}.yaml") | sections
            path = root / name / "params.yaml"
            io.write_bytes(path, yaml.safe_dump(sections, sort_keys=False).encode())
        dataset = sections["datasets"][0]
        layout = Layout(root if name == dataset else root / name, dataset)
        made[name] = Case(name, path, layout, made[base].layout if base else None)
    return made


def _read(path: Path) -> dict:  # type: ignore[type-arg]
    return dict(yaml_files.read_yaml(path))
