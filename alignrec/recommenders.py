"""Fitting a recommender: `alignrec.fit`. Letters: U users, I items, F width of features, D width of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from alignrec.interactions import GIVEN, Numbered, Splitting, number
from alignrec.pipeline.benchmark.cell import Cell, InMemoryData
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.config.base import checked, known
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.evaluation.metrics import Result, topk
from alignrec.pipeline.evaluation.protocol import selecting_protocol
from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions.params import Interactions
from alignrec.pipeline.interactions.split import Pairs, Split
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.ops.checkpoint import Checkpoint
from alignrec.pipeline.ops.scores import Filter
from alignrec.vectors import SINGLE, Vectors, aligned, at_least_one, similar

if TYPE_CHECKING:
    import scipy.sparse as sp

CUTOFFS = tuple(Benchmark().ks)
Other = TypeVar("Other", bound="sp.csr_array | Filter")
Progress = Callable[[dict[str, Any]], object]


class Recommendation(NamedTuple):
    """One recommended item."""

    item: Any
    """its identifier, as the interactions have it"""
    score: float
    """dot product of the user's vector and the item's"""


@dataclass(frozen=True, eq=False, repr=False)
class Recommender:
    """A fitted recommender, as it was at its best valid epoch."""

    model: str
    users: np.ndarray
    """[U], identifier of each row of `user_vectors`"""
    items: np.ndarray
    """[I], identifier of each row of `item_vectors`"""
    user_vectors: Vectors | sp.csr_array
    """float32 [U, D], with `ids`; sparse if the model's vectors are"""
    item_vectors: Vectors | sp.csr_array | Filter
    """float32 [I, D]; score = dot product; or a filter, of models without item vectors"""
    metrics: Mapping[str, Mapping[str, float]]
    """valid and, if it has targets, test -> such as recall@20 -> mean over users"""
    protocol: Mapping[str, Any]
    """name, fingerprint and settings of the protocol (method.md section 6)"""
    among_all: Mapping[str, Any] | None
    """where metrics rank only cold items: protocol, and metrics of the same model among all items; else None"""
    best_epoch: int
    history: Sequence[Mapping[str, Any]]
    """per epoch: loss, its terms, and valid metrics"""
    dropped: Mapping[str, int]
    """reason -> interactions that were not used"""
    seen: Pairs
    """what is never recommended: train"""

    @cached_property
    def rows(self) -> dict[Any, int]:
        """User -> row."""
        return {user: row for row, user in enumerate(self.users.tolist())}

    def recommend(self, user: Any, k: int = 10) -> list[Recommendation]:
        """Return the K items of highest score, best first, without the user's train items; fewer if no more are left.

        UserError: no such user, or K is below 1 or larger than the catalogue.
        """
        if user not in self.rows:
            raise UserError(f"no user {user!r} in train{similar(str(user), self.rows)}")
        if not 1 <= k <= len(self.items):
            raise UserError(f"k: {k}; give 1 to {len(self.items)}, the items of the catalogue")
        # the ranking that judges a model is the one that users get
        row = np.array([self.rows[user]])
        users, items = (np.asarray(x) if isinstance(x, Vectors) else x for x in (self.user_vectors, self.item_vectors))
        ranked = topk(users, items, k, self.seen, row)[0]
        ranked = ranked[ranked >= 0]
        if isinstance(self.item_vectors, Filter):
            scores = self.item_vectors[ranked].scores(self.user_vectors[row]).cpu().numpy()
        else:
            products = self.user_vectors[row] @ self.item_vectors[ranked].T
            scores = np.asarray(products) if isinstance(products, np.ndarray) else products.toarray()
        names = self.items[ranked].tolist()
        return [Recommendation(name, float(score)) for name, score in zip(names, scores[0], strict=True)]

    def __repr__(self) -> str:
        return f"<Recommender {self.model}: {len(self.users):,} users, {len(self.items):,} items>"


def fit(
    model: str,
    interactions: Any,
    vectors: np.ndarray | None = None,
    *,
    ids: Iterable[Any] | None = None,
    protocol: str | None = None,
    cold_share: float = Interactions().cold_share,
    most_train: int = Interactions().most_train,
    rule: Literal["mmrec", "strict"] = "mmrec",
    user_core: int = 1,
    item_core: int = 1,
    ks: Sequence[int] = CUTOFFS,
    graph_k: int = Graph().k,
    modalities: Sequence[int] = (),
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Recommender:
    """Fit a recommender on train, choose its epoch on valid, and open test once. Equal arguments give equal bytes.

    UserError if an argument cannot be used, or training diverges. `protocol`, `cold_share`, `most_train`, `user_core`,
    `item_core` and `seed` are those of alignrec.interactions.Splitting; the seed also draws weights and negatives.

    Args:
        model: a name in pipeline/models/, such as alignrec, lightgcn or itemknn.
        interactions: columns user and item, perhaps timestamp, rating, split; see alignrec.interactions.number.
        vectors: [I, F], for models that read content: their items are the catalogue, by default those that occur.
        ids: the item of each row of the vectors; by default their own `ids`, or else 0 .. I-1.
        rule: what is masked at test: mmrec only train, strict train and valid.
        ks: cutoffs of the metrics; those larger than the catalogue are left out.
        graph_k, modalities: neighbours per item in the item graph, itself included; widths of the vectors' modalities.
        checkpoint: folder from which a killed call with equal arguments resumes.
        progress: called with each finished epoch's line of the history.
        settings: of the model's own class in pipeline/models/, such as lr and epochs.
    """
    params = _check_arguments(model, vectors, cold_share, rule, settings)
    at_least_one(ks=ks, graph_k=[graph_k], most_train=[most_train])
    features, names = (None, None) if vectors is None else aligned({SINGLE: vectors}, ids)
    data = number(interactions, names, Splitting(protocol, user_core, item_core, seed, cold_share, most_train))
    parts = data.split()
    kept = "as imported" if data.protocol == GIVEN else f"users >= {user_core}, items >= {item_core}, repeatedly"
    rules = selecting_protocol(rule, data.protocol, kept, parts)
    x = features[SINGLE] if features is not None and MODELS[model].needs else None
    if x is not None and modalities and (total := sum(modalities)) != x.shape[1]:
        raise UserError(f"modalities: {list(modalities)} make {total} columns, the vectors have {x.shape[1]}")
    held, seed = InMemoryData(parts, x, graph_k, tuple(modalities)), seed_for("fit", model, seed)
    cell = Cell(held, model, params, rules, seed, _possible_cutoffs(ks, parts), "test")
    name = f"{model}-{cell.key[:16]}.safetensors"
    saved = Checkpoint(Path(checkpoint) / name, params.checkpoint_every) if checkpoint is not None else None
    return _train_cell(cell, data, parts, saved, progress)


def _check_arguments(
    model: str, vectors: np.ndarray | None, cold_share: float, rule: str, settings: dict[str, Any]
) -> Train:
    """Return the model's settings; UserError names the first argument that cannot be used."""
    known([model], MODELS, "model")
    known([rule], ("mmrec", "strict"), "rule")
    if not 0 < cold_share < 1:
        raise UserError(f"cold_share: {cold_share}; give a share of the items, between 0 and 1")
    if vectors is None and MODELS[model].needs:
        raise UserError(f"{model} reads content; give vectors, one an item")
    return checked(MODELS[model].Params, settings, f"fit.{model}")


def _possible_cutoffs(ks: Sequence[int], parts: Split) -> tuple[int, ...]:
    """Return the cutoffs that do not exceed the items that are ranked; that number if all do."""
    most = min(len(parts.cold_items(part)) for part in ("valid", "test")) if parts.is_cold else parts.n_items
    return tuple(k for k in ks if k <= most) or (most,)


def _train_cell(
    cell: Cell, data: Numbered, parts: Split, checkpoint: Checkpoint | None, progress: Progress | None
) -> Recommender:
    threads = torch.get_num_threads()
    torch.set_num_threads(cell.settings.threads)  # another number adds up in another order
    try:
        fitted, split = cell.train(progress, checkpoint)
        results = cell.judge(fitted, split)
    finally:
        torch.set_num_threads(threads)
    if checkpoint:
        checkpoint.clear()
    judged = [
        {"protocol": variant.described(), "metrics": _mean_metrics(result, parts)}
        for variant, result in zip(cell.protocol.variants, results, strict=True)
    ]
    return Recommender(
        model=cell.model,
        users=data.users,
        items=data.items,
        user_vectors=_with_ids(fitted.user, data.users),
        item_vectors=_with_ids(fitted.item, data.items),
        **judged[0],
        among_all=judged[1] if len(judged) > 1 else None,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        dropped={**data.dropped, **parts.dropped},
        seen=parts.train,
    )


def _mean_metrics(result: Result, parts: Split) -> dict[str, dict[str, float]]:
    judged = {"valid": (result.valid, parts.valid), "test": (result.test, parts.test)}
    return {
        which: {f"{metric}@{k}": value for (metric, k), value in evaluation.mean.items()}
        for which, (evaluation, pairs) in judged.items()
        if len(pairs)
    }


def _with_ids(vectors: np.ndarray | Other, ids: np.ndarray) -> Vectors | Other:
    return Vectors(vectors, ids) if isinstance(vectors, np.ndarray) else vectors
