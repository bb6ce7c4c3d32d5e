"""Fitting a recommender: `alignrec.fit`. Letters: U users, I items, F width of features, D width of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from alignrec.interactions import GIVEN, Numbered, numbered
from alignrec.vectors import SINGLE, Vectors, aligned, at_least_one, similar
from pipeline.benchmark.params import Benchmark
from pipeline.config.base import checked, known
from pipeline.errors import UserError
from pipeline.evaluation.protocol import selecting
from pipeline.evaluation.ranking import topk
from pipeline.evaluation.trial import Result
from pipeline.experiment.cell import Cell, Trained, opened
from pipeline.experiment.pairs import Held
from pipeline.graph.params import Graph
from pipeline.interactions.params import Interactions
from pipeline.interactions.split import Pairs, Split
from pipeline.models import MODELS
from pipeline.models.params import Train
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.filters import Filter
from pipeline.seeds import seed_for
from pipeline.train import loop

if TYPE_CHECKING:
    import scipy.sparse as sp

CUTOFFS = tuple(Benchmark().ks)
Other = TypeVar("Other", bound="sp.csr_array | Filter")


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
    """valid and, if anyone has a target there, test -> such as recall@20 -> mean over users"""
    protocol: Mapping[str, Any]
    """what the metrics mean: name, fingerprint and all that it is made of (method.md section 6)"""
    among_all: Mapping[str, Any] | None
    """where metrics rank cold items alone: protocol, and metrics of the same model among all items; else None"""
    best_epoch: int
    history: Sequence[Mapping[str, Any]]
    """one object an epoch: loss, its terms, and valid metrics"""
    dropped: Mapping[str, int]
    """reason -> interactions that were not used"""
    seen: Pairs
    """what is never recommended: train"""

    @cached_property
    def rows(self) -> dict[Any, int]:
        """User -> row."""
        return {user: row for row, user in enumerate(self.users.tolist())}

    def recommend(self, user: Any, k: int = 10) -> list[Recommendation]:
        """Return the K items of highest score, best first, without the user's train items.

        Args:
            user: as in the interactions.
            k: items; fewer come back where the catalogue has no more.

        Raises:
            UserError: no such user, or K is below 1 or larger than the catalogue.
        """
        if user not in self.rows:
            raise UserError(f"no user {user!r} in train{similar(str(user), self.rows)}")
        if not 1 <= k <= len(self.items):
            raise UserError(f"k: {k}; give 1 to {len(self.items)}, the items of the catalogue")
        row = np.array([self.rows[user]])
        ranked = topk(_plain(self.user_vectors), _plain(self.item_vectors), k, self.seen, row)[0]
        ranked = ranked[ranked >= 0]
        if isinstance(self.item_vectors, Filter):
            scores = self.item_vectors[ranked].scores(self.user_vectors[row]).cpu().numpy()
        else:
            products = self.user_vectors[row] @ self.item_vectors[ranked].T
            scores = np.asarray(products) if isinstance(products, np.ndarray) else products.toarray()
        items = self.items[ranked].tolist()
        return [Recommendation(item, float(score)) for item, score in zip(items, scores[0], strict=True)]

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
    progress: Callable[[dict[str, Any]], object] | None = None,
    **settings: Any,
) -> Recommender:
    """Fit a recommender on train, choose its epoch on valid, and open test once.

    Equal arguments give equal bytes on the same machine.

    Args:
        model: a name in the registry pipeline/models/, such as alignrec, lightgcn or itemknn.
        interactions: a table with the columns user and item, and perhaps timestamp, rating and split; see
            alignrec.interactions.numbered.
        vectors: [I, F], which models that read content need. Their items are the catalogue; without vectors the
            catalogue is the items that occur.
        ids: the item of each row of the vectors; by default their own `ids`, or else 0 .. I-1.
        protocol: how interactions are split: mmrec, user-time, leave-one-out, global-time, cold-items or sparse; by
            default as their column `split` says, or else mmrec.
        cold_share: of the items, that train lacks under cold-items.
        most_train: train interactions that a user keeps under sparse.
        rule: what is masked at test: mmrec train alone, strict train and valid.
        user_core: users with fewer interactions are dropped, and
        item_core: items with fewer, repeatedly.
        ks: cutoffs of the metrics; those larger than the catalogue are left out.
        graph_k: neighbours of an item in the item graph, itself included.
        modalities: widths of the modalities that stand side by side in the vectors; none: one modality.
        seed: of the split, initial values, order and negatives.
        checkpoint: folder where a killed call with equal arguments continues from.
        progress: called with each finished epoch's line of the history.
        settings: of the model's own class in pipeline/models/, such as lr and epochs.

    Raises:
        UserError: an argument cannot be used, or training diverges; the line says which, and why.
    """
    known([model], MODELS, "model")
    known([rule], ("mmrec", "strict"), "rule")
    at_least_one(ks=ks, graph_k=[graph_k], most_train=[most_train])
    if not 0 < cold_share < 1:
        raise UserError(f"cold_share: {cold_share}; give a share of the items, between 0 and 1")
    params = checked(MODELS[model].Params, settings, f"fit.{model}")
    if vectors is None and MODELS[model].needs:
        raise UserError(f"{model} reads content; give vectors, one an item")
    features, names = (None, None) if vectors is None else aligned({SINGLE: vectors}, ids)
    known_as = numbered(interactions, names, protocol, user_core, item_core, seed, cold_share, most_train)
    parts = known_as.split()
    rules = selecting(rule, known_as.protocol, _filter(known_as.protocol, user_core, item_core), parts)
    x = features[SINGLE] if features is not None and MODELS[model].needs else None
    data = _held(parts, x, graph_k, modalities)
    cell = Cell(data, model, params, rules, seed_for("fit", model, seed), _cutoffs(ks, parts), "test")
    trained, judged = _trained(cell, parts, params.threads, progress, _checkpoint(checkpoint, cell, params))
    return _recommender(model, known_as, parts, trained.fitted, judged)


def _held(parts: Split, x: np.ndarray | None, graph_k: int, modalities: Sequence[int]) -> Held:
    if x is not None and modalities and sum(modalities) != x.shape[1]:
        raise UserError(f"modalities: {list(modalities)} make {sum(modalities)} columns, the vectors have {x.shape[1]}")
    return Held(parts, x, graph_k, tuple(modalities))


def _cutoffs(ks: Sequence[int], parts: Split) -> tuple[int, ...]:
    most = min(len(parts.cold_items(part)) for part in ("valid", "test")) if parts.is_cold else parts.n_items
    return tuple(k for k in ks if k <= most) or (most,)


def _trained(
    cell: Cell,
    parts: Split,
    threads: int,
    progress: Callable[[dict[str, Any]], object] | None,
    checkpoint: Checkpoint | None,
) -> tuple[Trained, list[dict[str, Any]]]:
    with _threads(threads):
        trained = cell.data.train(cell, progress, checkpoint)
        results = opened(cell, trained)
    if checkpoint:
        checkpoint.clear()
    return trained, [
        {"protocol": variant.described(), "metrics": _metrics(result, parts)}
        for variant, result in zip(cell.protocol.variants, results, strict=True)
    ]


def _recommender(
    model: str, data: Numbered, parts: Split, fitted: loop.Fit, judged: Sequence[Mapping[str, Any]]
) -> Recommender:
    return Recommender(
        model=model,
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


def _filter(protocol: str, user_core: int, item_core: int) -> str:
    return "as imported" if protocol == GIVEN else f"users >= {user_core}, items >= {item_core}, repeatedly"


def _checkpoint(folder: str | Path | None, cell: Cell, params: Train) -> Checkpoint | None:
    if folder is None:
        return None
    return Checkpoint(Path(folder) / f"{cell.model}-{cell.training[:16]}.safetensors", params.checkpoint_every)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _metrics(result: Result, parts: Split) -> dict[str, dict[str, float]]:
    judged = {"valid": (result.valid, parts.valid), "test": (result.test, parts.test)}
    return {
        which: {f"{metric}@{k}": value for (metric, k), value in evaluation.mean.items()}
        for which, (evaluation, pairs) in judged.items()
        if len(pairs)
    }


def _with_ids(vectors: np.ndarray | Other, ids: np.ndarray) -> Vectors | Other:
    return Vectors(vectors, ids) if isinstance(vectors, np.ndarray) else vectors


def _plain(vectors: Vectors | Other) -> np.ndarray | Other:
    return np.asarray(vectors) if isinstance(vectors, np.ndarray) else vectors
