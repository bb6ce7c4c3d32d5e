"""Which released feature sets linear algebra makes of others, and what encodes new items into them."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

import schemas
from pipeline import io
from pipeline.encode.params import Encode
from pipeline.encode.throughput import Throughput
from pipeline.errors import UserError
from pipeline.features import registry
from pipeline.features.linear import Linear
from pipeline.features.node import Items, shard
from pipeline.features.sets import FeatureSets
from pipeline.io import fingerprint
from pipeline.items.texts import Texts
from pipeline.ops.joining import Fit
from pipeline.release import chain, encoder
from pipeline.release.encoder import Facts, ReleasedEncoder
from pipeline.run import Run

CLOSE = 1e-4
"""relative tolerance between the features and what the maps give"""


def gather(run: Run, names: Sequence[str]) -> dict[str, ReleasedEncoder]:
    """Return the encoders of feature sets: those that encode, and those that are made of them with their parts.

    UserError if the features of such a set were made with other settings.
    """
    sets = FeatureSets.of(run.layout, run.params[Encode], run.params.encoders)
    chains: dict[str, Linear] = {}
    for name in names:
        if name in sets.params.encoders and registry.kind(sets.encoders, name) == registry.LINEAR:
            node = sets[name]
            assert isinstance(node, Linear)
            chains[name] = node
    parts = {name: [part.name for part in node.of] for name, node in chains.items()}
    released = encoder.gather(run.layout, dict.fromkeys([*names, *(part for some in parts.values() for part in some)]))
    whole = {name: some for name, some in parts.items() if some and all(part in released for part in some)}
    kept = {*names, *(part for some in whole.values() for part in some)}
    released = {name: one for name, one in released.items() if name in kept}
    return released | {name: _released(chains[name], released) for name in whole}


def _released(node: Linear, released: Mapping[str, ReleasedEncoder]) -> ReleasedEncoder:
    parts = [released[part.name].facts for part in node.of]
    facts = Facts(
        encoder=node.name,
        reads=[modality for modality in ("image", "text") if any(modality in part.reads for part in parts)],
        settings={"kind": node.kind, **node.own.model_dump(exclude={"of"}), **node.way._asdict()},
        parts=[part.name for part in node.of],
        packages={},
        batch_size=parts[0].batch_size,
        image_size=parts[0].image_size,
        image_quality=parts[0].image_quality,
        fingerprint=fingerprint.of(io.record(node.shards[0])),
    )
    return ReleasedEncoder(facts, [], partial(chain.write, fit=_fit(node)))


def _fit(node: Linear) -> Fit:
    """Fit the maps to all items again, which gives the same; UserError if the features are not those that they give."""
    ids = io.read_table(node.layout.item_ids, schemas.ITEM_IDS)
    fit = node.fitted(Items(ids, Texts(node.layout.items), Throughput()))
    there = io.matrix(shard(node.shards[0])["vector"])
    given = fit([io.matrix(shard(part.shards[0])["vector"]) for part in node.of])
    if given.shape != there.shape or np.abs(given - there).max() > CLOSE * max(1.0, float(np.abs(there).max())):
        raise UserError(f"{node.folder}: made with other settings; run `alignrec encode {node.layout.dataset}`")
    return fit
