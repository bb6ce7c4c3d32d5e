"""Which released feature sets linear algebra makes of others, and what encodes new items into them."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

import schemas
from pipeline import io
from pipeline.encode.throughput import Throughput
from pipeline.errors import UserError
from pipeline.features import registry
from pipeline.features.chosen import Chosen
from pipeline.features.linear import Linear
from pipeline.features.node import Items, Node, shard
from pipeline.features.search import Recipe
from pipeline.features.sets import FeatureSets
from pipeline.io import fingerprint
from pipeline.items.texts import Texts
from pipeline.release import chain, encoder
from pipeline.release.encoder import Facts, ReleasedEncoder

CLOSE = 1e-4
"""of the largest number: the features must be those that the maps give"""


def gather(sets: FeatureSets, names: Sequence[str]) -> dict[str, ReleasedEncoder]:
    """Return the encoders of feature sets: those that encode, and those that are made of them with their parts.

    UserError if the features of such a set were made with other settings.
    """
    chains = {name: node for name in names if isinstance(node := _node(sets, name), Linear | Chosen)}
    parts = {name: [part.name for part in _parts(node)] for name, node in chains.items()}
    needed = dict.fromkeys([*names, *(part for some in parts.values() for part in some)])
    released = encoder.gather(sets.layout, needed)
    whole = {name: some for name, some in parts.items() if some and all(part in released for part in some)}
    kept = {*names, *(part for some in whole.values() for part in some)}
    released = {name: one for name, one in released.items() if name in kept}
    return released | {name: _released(chains[name], some, released) for name, some in whole.items()}


def _node(sets: FeatureSets, name: str) -> Node | None:
    made = name in sets.params.encoders and registry.kind(sets.encoders, name) in (registry.LINEAR, registry.CHOSEN)
    return sets[name] if made else None


def _parts(node: Linear | Chosen) -> list[Node]:
    """Return the sets that it is made of, in order; of a chosen one those of the winner."""
    return [one for one in node.of if not isinstance(node, Chosen) or one.name in node.winner.of]


def _released(node: Linear | Chosen, parts: Sequence[str], released: Mapping[str, ReleasedEncoder]) -> ReleasedEncoder:
    recipe = _recipe(node)
    _check(node, recipe)
    first = released[parts[0]].facts
    own = node.own.model_dump(exclude={"of"}) | (node.way._asdict() if isinstance(node, Linear) else {})
    facts = Facts(
        encoder=node.name,
        reads=[one for one in ("image", "text") if any(one in released[part].facts.reads for part in parts)],
        settings={"kind": node.kind, **own},
        parts=list(parts),
        packages={},
        batch_size=first.batch_size,
        image_size=first.image_size,
        image_quality=first.image_quality,
        fingerprint=fingerprint.of(io.record(node.shards[0])),
    )
    return ReleasedEncoder(facts, [], partial(chain.write, recipe=recipe))


def _recipe(node: Linear | Chosen) -> Recipe:
    """Return the maps, fitted to all items again, which gives the same; of the parts that are used, in order."""
    texts = Texts(node.layout.items)
    items = Items(io.read_table(node.layout.item_ids, schemas.ITEM_IDS), texts, Throughput())
    fitted = node.fitted(items)
    recipe = fitted if isinstance(fitted, Recipe) else Recipe(fitted, None, None)
    at = {node.of.index(part): i for i, part in enumerate(_parts(node))}
    blocks = [block._replace(part=at[block.part]) for block in recipe.content.blocks]
    return Recipe(type(recipe.content)(blocks, recipe.content.maps, recipe.content.last), recipe.ridge, recipe.last)


def _check(node: Linear | Chosen, recipe: Recipe) -> None:
    """Refuse maps that do not give the features that are there."""
    parts = [io.matrix(shard(part.shards[0])["vector"]) for part in _parts(node)]
    released = io.matrix(shard(node.shards[0])["vector"])
    made = recipe(parts)
    if made.shape != released.shape or np.abs(made - released).max() > CLOSE * max(1.0, float(np.abs(released).max())):
        raise UserError(f"{node.folder}: made with other settings; run `alignrec encode {node.layout.dataset}`")
