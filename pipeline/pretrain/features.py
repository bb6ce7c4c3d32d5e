"""What pre-training reads of the feature sets that `encode` wrote: the target of CLS, and the images of `mini`.

The target is the joint vector of feature set `linear`, so CLS learns one vector whatever the encoders, in which
directions and modalities are already weighted.

Letters: I items, F width of a set's vectors, W of the target.
"""

from collections.abc import Iterator

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode import quality
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.encode.params import IMAGE_TOKENS, Encode
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.ops import joining
from alignrec.pipeline.ops.joining import IMAGE, POWER, WIDTH
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.pretrain import mini
from alignrec.pipeline.pretrain.params import Pretrain

BLOCK = 4096  # items in memory at a time


def read_target(run: Run, texts: Texts) -> np.ndarray | None:
    """Return the joint vector of the teachers, float32 [I, W], rows of length 1, or zero for items without content.

    By default teachers are skipped that are not encoded, or read no modality of the dataset; None without teachers.
    """
    layout, own = run.layout, run.params[Pretrain]
    given, there = "distill_from" in own.model_fields_set, _modalities(layout, texts)
    names = [name for name in own.distill_from if given or name in run.params[Encode].encoders]
    sets = [FeatureSet.of(layout, name) for name in names]
    sets = [one for one in sets if given or there & {*one.facts.reads}]
    features = [io.map_features(one.folder) for one in sets]
    distinct = [quality.differ(vectors) for vectors in features]
    blocks = [block for block in joining.split_blocks([one.spans for one in sets], IMAGE) if distinct[block.part]]
    if not blocks:
        if sets:
            run.warn("pretrain.distill_from: no teacher distinguishes items, so nothing is distilled")
        return None

    def parts() -> Iterator[list[np.ndarray]]:
        return ([x[start : start + BLOCK] for x in features] for start in range(0, len(texts), BLOCK))

    fit = joining.fit_blocks(parts, blocks, WIDTH, POWER)
    return io.mapped((unit_rows(fit(some))[0] for some in parts()), layout.encoder_scratch)


def read_images(layout: Layout) -> mini.Images:
    """Return the vectors of all images, those of IMAGE_TOKENS side by side."""
    texts = Texts(layout.items)
    if "image" not in _modalities(layout, texts):
        return mini.Images(np.zeros((len(texts), 0), np.float32), np.full(len(texts), -1), ())
    sets = [FeatureSet.of(layout, name) for name in IMAGE_TOKENS]
    shards = (np.hstack(parts) for parts in zip(*(one.vectors() for one in sets), strict=True))
    vectors = io.mapped(shards, layout.encoder_scratch)
    has = np.concatenate([vectors[start : start + BLOCK].any(axis=1) for start in range(0, len(vectors), BLOCK)])
    widths = tuple(one.width for one in sets) if has.any() else ()
    return mini.Images(vectors, np.where(has, np.arange(len(vectors)), -1), widths)


def _modalities(layout: Layout, texts: Texts) -> set[str]:
    statuses = (
        io.read_table(path, schemas.IMAGES, ["status"])["status"] for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard.unique().to_pylist() for shard in statuses)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}
