"""The frozen encoders that teach pre-training. Kinds are loaded by name; needs.py says what that depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch

import schemas
from pipeline import io
from pipeline.encode.batching import Throughput
from pipeline.encode.origin import plainly
from pipeline.encode.params import MODALITIES, Encode
from pipeline.errors import UserError
from pipeline.features.mapped import factors as mapped_factors
from pipeline.features.mapped import train_pairs
from pipeline.features.node import Items
from pipeline.features.sets import FeatureSets
from pipeline.interactions.cooccurrence import user_item_matrix
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.pretrain.distillation import Target, target
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.teacher import Lazy, Teacher
from pipeline.run import Run


class Named(NamedTuple):
    """A teacher, not loaded yet, and what identifies it."""

    load: Lazy
    facts: dict[str, Any]
    """settings; of somebody's network the model and its revision"""


def of(run: Run) -> Named | None:
    """Return the teacher of visual tokens that the parameters name; None where they need none.

    Raises:
        UserError: there is no such network, it cannot be read, or it reads no images.
    """
    name = run.params[Pretrain].teacher
    if not run.params[Pretrain].taught:
        return None
    node = FeatureSets(run.layout, run.params[Encode], run.params.encoders).encoded(name)
    if "image" not in node.reads:
        raise UserError(f"'pretrain.teacher': {name} reads no images; take one that does, such as cnn")

    def load() -> Teacher:
        with plainly("pretrain.teacher"):
            teacher: Any = node.load()
            teacher.feature_map(torch.zeros(1, teacher.side, teacher.side, 3, dtype=torch.uint8), 1)  # whether it can
        return cast(Teacher, teacher)  # by its Spec's `feature_map`

    return Named(load, {"teacher": name} | node.facts())


def factors(layout: Layout, width: int, items: int, seed: int) -> Target:
    """Return what train interactions say of the items that have any, see `mapped.factors`; of others nothing."""
    matrix = user_item_matrix(*train_pairs(layout, np.zeros(0, np.int64)), items)
    vectors = mapped_factors(matrix, width, seed).astype(np.float32)
    return Target("factors", unit_rows(vectors)[0], MODALITIES)


def targets(run: Run, texts: Sequence[str]) -> tuple[Target, ...]:
    """Return what the encoders of `pretrain.distill_from` know of the items; they run unless that is on disk.

    Where the key is not given, those are left out that read nothing which the dataset has.
    """
    layout, own = run.layout, run.params[Pretrain]
    params = run.params[Encode].model_copy(update={"encoders": []})  # parts of a concat are encoded here: no set is yet
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    sets, out = FeatureSets(layout, params, run.params.encoders), []
    given, there = "distill_from" in own.model_fields_set, _modalities(layout, texts)
    names = [name for name in own.distill_from if given or there & {*sets[name].reads}]
    with run.progress(total=len(texts) * len(names), unit="item", what="teachers") as bar:
        for name in names:
            node = sets[name]
            rows = node.rows(Items(ids, pa.chunked_array([texts], pa.string()), Throughput(), bar.update))
            cache = layout.teacher_target(name)
            with plainly("pretrain.distill_from"):
                out.append(target(name, node.reads, rows, len(ids), cache, run.seed("targets")))
    if own.factors:
        out.append(factors(layout, own.factors, len(ids), run.seed("factors")))
    return tuple(out)


def _modalities(layout: Layout, texts: Sequence[str]) -> set[str]:
    """Return which modalities any item of the dataset has."""
    statuses = (
        io.read_table(path, schemas.IMAGES, ["status"])["status"] for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard.unique().to_pylist() for shard in statuses)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}
