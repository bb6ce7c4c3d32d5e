"""Fit a recommender: `alignrec.fit`.

U users, I items, F width of features, D width of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from alignrec.interactions import GIVEN, Numbered, Splitting, number
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.evaluation.benchmark.cell import Cell, InMemoryData
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.protocol import selecting_protocol
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.metrics import topk
from alignrec.pipeline.models.scores import Filter
from alignrec.pipeline.models.settings import params_of
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.section import require_known, validate
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.vectors import SINGLE, Vectors, align_sets, require_positive, suggest_name

if TYPE_CHECKING:
    import scipy.sparse as sp

BENCHMARK_CUTOFFS = tuple(Benchmark().ks)
Progress = Callable[[dict[str, Any]], object]


class Recommendation(NamedTuple):
    """One recommended item."""

    item: Any
    """identifier of the item, as in the interactions"""
    score: float
    """dot product of the user's and the item's vector"""


@dataclass(frozen=True, eq=False, repr=False)
class Recommender:
    """A recommender fitted by `alignrec.fit`, at its best epoch on validation."""

    model: str
    """name of the model"""
    users: np.ndarray
    """[U], identifier of each row of `user_vectors`"""
    items: np.ndarray
    """[I], identifier of each row of `item_vectors`"""
    user_vectors: Vectors | sp.csr_array
    """float32 [U, D] with `ids`, or sparse for models with sparse vectors"""
    item_vectors: Vectors | sp.csr_array | Filter
    """float32 [I, D] with `ids`, sparse, or a graph filter for models without item vectors; score =
    dot product"""
    metrics: Mapping[str, Mapping[str, float]]
    """`valid` and, if the split has test interactions, `test` -> metric, such as `recall@20` ->
    mean over users"""
    protocol: Mapping[str, Any]
    """name, fingerprint and settings of the evaluation protocol (method.md section 6)"""
    among_all: Mapping[str, Any] | None
    """protocol and metrics of a ranking among all items, if `metrics` rank cold items only;
    otherwise None"""
    best_epoch: int
    """epoch with the highest validation score"""
    history: Sequence[Mapping[str, Any]]
    """training loss, its terms and validation metrics of each epoch"""
    dropped: Mapping[str, int]
    """number of unused interactions by reason"""
    seen: Pairs
    """training interactions, which are never recommended"""

    @cached_property
    def rows(self) -> dict[Any, int]:
        """Row of each user in `user_vectors`."""
        return {user: row for row, user in enumerate(self.users.tolist())}

    def recommend(self, user: Any, k: int = 10) -> list[Recommendation]:
        """Recommend items that the user has not interacted with in training.

        Args:
            user: Identifier of the user.
            k: Maximum number of items.

        Returns:
            The items of highest score, best first.

        Raises:
            UserError: If the user is unknown, or `k` is not between 1 and the number of items.
        """
        if user not in self.rows:
            raise UserError(f"no user {user!r} in train{suggest_name(str(user), self.rows)}")
        if not 1 <= k <= len(self.items):
            raise UserError(f"k: {k}; give 1 to {len(self.items)}, the items of the catalogue")

        # the same ranking as in the evaluation
        row = np.array([self.rows[user]])
        users = _plain_array(self.user_vectors)
        items = _plain_array(self.item_vectors)
        ranked = topk(users, items, k, self.seen, row)[0]
        ranked = ranked[ranked >= 0]

        scores = _scores(users[row], items[ranked])
        names = self.items[ranked].tolist()
        return [
            Recommendation(name, float(score)) for name, score in zip(names, scores, strict=True)
        ]

    def __repr__(self) -> str:
        return f"<Recommender {self.model}: {len(self.users):,} users, {len(self.items):,} items>"


def _plain_array(vectors: Any) -> Any:
    return np.asarray(vectors) if isinstance(vectors, Vectors) else vectors


def _scores(user: Any, items: Any) -> np.ndarray:
    """Return scores of items for one user, float32 [I]; vectors are dense, sparse or a filter."""
    if isinstance(items, Filter):
        scores = items.scores(user).cpu().numpy()
    else:
        products = user @ items.T
        scores = products if isinstance(products, np.ndarray) else products.toarray()
    return np.asarray(scores[0])


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
    ks: Sequence[int] = BENCHMARK_CUTOFFS,
    graph_k: int = Graph().k,
    modalities: Sequence[int] = (),
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Recommender:
    """Fit a recommender on train, select its epoch on valid and evaluate it on test once.

    Equal arguments give byte-identical results.

    Args:
        model: Name of a model in `pipeline/models/`, such as `alignrec`, `lightgcn` or `itemknn`.
        interactions: Columns user and item, optionally timestamp, rating and split; for accepted
            types see `alignrec.interactions.number`.
        vectors: Item features [I, F], required by content models. Their items are the catalogue;
            without vectors the catalogue consists of the items that occur.
        ids: Item of each row of the vectors. Defaults to their `ids`, or to 0 .. I-1 without any.
        protocol: `mmrec`, `user-time`, `leave-one-out`, `global-time`, `cold-items` or `sparse`. By
            default the column `split` is kept, or `mmrec` is used without one.
        cold_share: Fraction of items without training interactions, for `cold-items`.
        most_train: Maximum training interactions per user, for `sparse`.
        rule: Items that are masked at test: those in train (`mmrec`), or in train and valid
            (`strict`).
        user_core: Minimum interactions per user; applied repeatedly, together with `item_core`.
        item_core: Minimum interactions per item.
        ks: Cutoffs of the metrics. Those above the number of ranked items are dropped.
        graph_k: Neighbours per item in the item graph, including the item itself.
        modalities: Widths of the modalities that `vectors` concatenate.
        seed: Seed of the split, initial weights and negative samples.
        checkpoint: Folder for checkpoints, from which an interrupted call with equal arguments
            resumes.
        progress: Called after each epoch with its entry of the history.
        **settings: Parameters of the model, such as `lr` and `epochs`; see its class in
            `pipeline/models/`.

    Returns:
        The recommender of the best epoch, with its metrics.

    Raises:
        UserError: If an argument is invalid or training diverges.

    Examples:
        >>> drawn = np.random.default_rng(0).integers(0, [200, 50], (2000, 2))
        >>> pairs = np.unique(drawn, axis=0)  # user, item
        >>> model = alignrec.fit("itemknn", pairs)
        >>> len(model.recommend(user=0, k=3))
        3
    """
    require_known([model], MODELS, "model")
    require_known([rule], ("mmrec", "strict"), "rule")
    if not 0 < cold_share < 1:
        raise UserError(f"cold_share: {cold_share}; give a share of the items, between 0 and 1")
    if vectors is None and MODELS[model].needs:
        raise UserError(f"{model} reads content; give vectors, one an item")
    params = validate(params_of(model), settings, f"fit.{model}")
    require_positive(ks=ks, graph_k=[graph_k], most_train=[most_train])

    sets, names = (None, None) if vectors is None else align_sets({SINGLE: vectors}, ids)
    splitting = Splitting(protocol, user_core, item_core, seed, cold_share, most_train)
    data = number(interactions, names, splitting)
    split = data.split()
    filtering = f"users >= {user_core}, items >= {item_core}, repeatedly"
    if data.protocol == GIVEN:
        filtering = "as imported"
    rules = selecting_protocol(rule, data.protocol, filtering, split)

    features = sets[SINGLE] if sets is not None and MODELS[model].needs else None
    if features is not None:
        _check_widths(modalities, features.shape[1])
    stored = InMemoryData(split, features, graph_k, tuple(modalities))
    cell_seed = seed_for("fit", model, seed)
    cell = Cell(stored, model, params, rules, cell_seed, _possible_cutoffs(ks, split), "test")
    saved = None
    if checkpoint is not None:
        path = Path(checkpoint) / f"{model}-{cell.key[:16]}.safetensors"
        saved = Checkpoint(path, params.checkpoint_every)
    return _train_cell(cell, data, split, saved, progress)


def _check_widths(modalities: Sequence[int], width: int) -> None:
    total = sum(modalities)
    if modalities and total != width:
        raise UserError(
            f"modalities: {list(modalities)} make {total} columns, the vectors have {width}"
        )


def _possible_cutoffs(ks: Sequence[int], split: Split) -> tuple[int, ...]:
    n_ranked = split.n_items
    if split.has_cold_items:
        n_ranked = min(len(split.cold_items("valid")), len(split.cold_items("test")))
    return tuple(k for k in ks if k <= n_ranked) or (n_ranked,)


def _train_cell(
    cell: Cell,
    data: Numbered,
    split: Split,
    checkpoint: Checkpoint | None,
    progress: Progress | None,
) -> Recommender:
    threads = torch.get_num_threads()
    # the order of summation, and so the result, depends on it
    torch.set_num_threads(cell.settings.threads)
    try:
        fitted, _ = cell.train(progress, checkpoint)
        evaluations = cell.judge(fitted, split)
    finally:
        torch.set_num_threads(threads)
    if checkpoint:
        checkpoint.clear()

    judged = []
    for variant, evaluation in zip(cell.protocol.variants, evaluations, strict=True):
        metrics = {}
        if len(split.valid):
            metrics["valid"] = evaluation.valid.named_means()
        if len(split.test):
            metrics["test"] = evaluation.test.named_means()
        judged.append({"protocol": variant.describe(), "metrics": metrics})
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
        dropped={**data.dropped, **split.dropped},
        seen=split.train,
    )


def _with_ids(vectors: Any, ids: np.ndarray) -> Any:
    return Vectors(vectors, ids) if isinstance(vectors, np.ndarray) else vectors
