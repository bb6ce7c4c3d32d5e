"""The frozen encoders that teach pre-training. Kinds are loaded by name; needs.py says what that depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch

import schemas
from pipeline.encode import batching, contexts, feature_sets
from pipeline.encode.origin import plainly
from pipeline.encode.params import Encode
from pipeline.encode.registry import settings, spec
from pipeline.errors import UserError
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
    name, encoders = run.params[Pretrain].teacher, run.params.encoders
    if not run.params[Pretrain].taught:
        return None
    context = contexts.context_of(run.layout, run.params[Encode], encoders, name)
    if "image" not in contexts.modalities(context):
        raise UserError(f"'pretrain.teacher': {name} reads no images; take one that does, such as cnn")

    def load() -> Teacher:
        with plainly("pretrain.teacher"):
            teacher: Any = spec(encoders, name).make(context, settings(encoders, name))
            teacher.feature_map(torch.zeros(1, teacher.side, teacher.side, 3, dtype=torch.uint8), 1)  # whether it can
        return cast(Teacher, teacher)  # by its Spec's `feature_map`

    return Named(load, {"teacher": name} | contexts.facts(context))


def targets(run: Run, texts: Sequence[str]) -> tuple[Target, ...]:
    """Return what the encoders of `pretrain.distill_from` know of the items; they run unless that is on disk."""
    layout, own = run.layout, run.params[Pretrain]
    params = run.params[Encode].model_copy(update={"encoders": []})  # parts of a concat are encoded here: no set is yet
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    out = []
    with run.progress(total=len(texts) * len(own.distill_from), unit="item", what="teachers") as bar:
        for name in own.distill_from:
            context = contexts.context_of(layout, params, run.params.encoders, name)
            rows = feature_sets.rows_of(context, ids, texts, bar.update, batching.Throughput())
            cache = layout.teacher_target(name)
            with plainly("pretrain.distill_from"):
                out.append(target(name, contexts.modalities(context), rows, len(ids), cache, run.seed("targets")))
    return tuple(out)
