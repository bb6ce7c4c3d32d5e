"""The frozen encoders that teach pre-training. Kinds are loaded by name; needs.py says what that depends on."""

import numpy as np

import schemas
from pipeline import io
from pipeline.encode.origin import plainly
from pipeline.encode.params import Encode
from pipeline.encode.throughput import Throughput
from pipeline.features import linear
from pipeline.features.node import Items
from pipeline.features.sets import FeatureSets
from pipeline.items.texts import Texts
from pipeline.layout import Layout
from pipeline.ops.joining import IMAGE
from pipeline.pretrain.distillation import encoded, target
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run


def teach(run: Run, texts: Texts) -> np.ndarray | None:
    """Return what the encoders of `pretrain.distill_from` know of the items, float32 [I, W]; None if none is left.

    They run unless that is on disk. Where the key is not given, those are left out that read nothing which the
    dataset has.
    """
    layout, own = run.layout, run.params[Pretrain]
    params = run.params[Encode].model_copy(update={"encoders": []})  # parts of a concat are encoded here: no set is yet
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    sets = FeatureSets(layout, params, run.params.encoders)
    given, there = "distill_from" in own.model_fields_set, _modalities(layout, texts)
    nodes = [sets[name] for name in own.distill_from if given or there & {*sets[name].reads}]
    if not nodes:
        return None
    with (
        run.progress(total=len(texts) * len(nodes), unit="item", what="teachers") as bar,
        plainly("pretrain.distill_from"),
    ):
        items = Items(ids, texts, Throughput(), bar.update)
        features = [encoded(node.rows(items), len(ids), layout.teacher_features(node.name)) for node in nodes]
        return target(features, linear.blocks(nodes, items, IMAGE), layout.teacher_target)


def _modalities(layout: Layout, texts: Texts) -> set[str]:
    """Return which modalities any item of the dataset has."""
    statuses = (
        io.read_table(path, schemas.IMAGES, ["status"])["status"] for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard.unique().to_pylist() for shard in statuses)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}
