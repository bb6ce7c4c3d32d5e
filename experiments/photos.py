"""Items with two images, the second drawn from the first (docs/study.md).

Command: `python -m experiments.photos sample`.
"""

import io as memory
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from PIL import Image, ImageOps

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.images.decode import Decoded, normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.images.several import MORE, mark_duplicate
from alignrec.pipeline.report.table import Table, with_error
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import branched, opened, record
from experiments.wrong import draw_cycle

ONE = "one-image"
OTHER = "another-item"  # control: the second image is that of another item
NOTE = "Raw, ± standard error. Second images that look like the first are left out."
VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.rotate(20, Image.Resampling.BICUBIC, fillcolor="white"),
    "recoloured": lambda image: Image.merge("RGB", image.split()[1:] + image.split()[:1]),
    OTHER: Image.Image.copy,
}


def draw_view(image: bytes, view: str, params: Images) -> Decoded:
    drawn = memory.BytesIO()
    with Image.open(memory.BytesIO(image)) as first:
        VIEWS[view](first.convert("RGB")).save(drawn, "PNG")
    return normalise_image(drawn.getvalue(), params.size, params.quality, params.max_pixels)


def second_images(images: list[bytes | None], view: str, params: Images) -> Iterator[list[Any]]:
    """Yield the second image of each item in a list, which is empty for items without an image."""
    stored = [image for image in images if image is not None]
    others = iter(draw_cycle(len(stored), np.random.default_rng(seed_for("photos", view))))
    for image in images:
        if image is None:
            yield []
            continue
        second = draw_view(stored[next(others)] if view == OTHER else image, view, params)
        yield [mark_duplicate(second, [Decoded("ok", "", image)])._asdict()]


def write_images(layout: Layout, branch: Layout, view: str, params: Images) -> None:
    for path in io.shards(layout.images, "images"):
        table = io.read_table(path, schemas.IMAGES)
        seconds = list(second_images(table["image"].to_pylist(), view, params))
        column = pa.array(seconds, schemas.IMAGES_WITH_MORE.field(MORE).type)
        table = table.append_column(MORE, column)
        io.write_table(table, branch.images / path.name, schemas.IMAGES_WITH_MORE)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = ["cnn", "descriptors"],  # noqa: B006
    view: Annotated[list[str], typer.Option()] = [*VIEWS],  # noqa: B006
) -> None:
    """Encode items with one and with two images and record all probes of both."""
    given, layout, folder = opened(dataset, params, root, "photos")
    encode = given[Encode].model_copy(update={"encoders": features})
    changed = given.with_sections(encode, given[Combine].model_copy(update={"sets": {}}))
    answers = {}
    for name in (ONE, *view):
        if name != ONE:
            write_images(layout, Layout(folder / name, dataset), name, given[Images])
        branch = branched(layout, folder / name, changed, ["encode", "combine", "probe"])
        answers[name] = io.read_json(branch.probes)

    probes = {key: PROBES[key] for key in PROBES if features[0] in answers[ONE].get(key, {})}
    rows = []
    for feature_set, (name, probed) in product(features, answers.items()):
        asked = [(probed[key][feature_set], probe.figure) for key, probe in probes.items()]
        cells = [with_error(answer[figure], answer[f"{figure}_se"]) for answer, figure in asked]
        rows.append([feature_set, name, *cells])
    head = ("features", "second image", *(f"{p.name} {p.figure}" for p in probes.values()))
    record(layout, "photos", Table("", NOTE, head, rows))


if __name__ == "__main__":
    typer.run(main)
