"""Feature sets judged before any training: zero-shot, Item-CF (method.md section 5), content neighbours, categories.

The first three ask one question: a few member items, one target item; is the target among the K items that are nearest
to the members' mean, members left out? All questions share one pass over a feature set, a block of candidate items
at a time: each cosine is computed once, and nothing I x I is ever held.

Ties are resolved by expectation, so that no result hangs on the order of rows or ids: a target whose score is shared
by t items after g better ones is in the top K with probability clip((K - g) / t, 0, 1); where several items are
equally the target, each is, in turn, with equal weight. Constant features therefore score exactly as chance does.

N questions, U users, I items, F feature width, K cutoff.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

import schemas
from pipeline import pool
from pipeline.interactions import cooccurrence
from pipeline.ops.rows import unit_rows
from pipeline.probe import categories
from schemas import TEST, TRAIN

TIE = 1e-6
"""cosines nearer than this are equal: features hold single precision, and products of equal rows differ by less"""

PROBES = {"zero_shot": ("users", "hit"), "item_cf": ("items", "hit"), "content_knn": ("users", "recall")}
"""probe -> what its groups are, and the name of its figure"""


@dataclass(frozen=True)
class Questions:
    """What a probe asks of every feature set; the answer to all N is one blocked pass."""

    members: sparse.csr_array
    """[N, I], 1 where an item is one of the question's members"""
    target: np.ndarray
    """int64 [N], the item to be found; never a member of its own question"""
    group: np.ndarray
    """int64 [N], which user (or item) a question belongs to, 0 .. G-1: groups weigh the same, whatever their size"""
    note: str = ""
    """what a reader of the figures must know about the questions"""

    @property
    def groups(self) -> int:
        """G."""
        return int(self.group.max(initial=-1)) + 1


def last_item(user: np.ndarray, item: np.ndarray, timestamp: np.ndarray, n_items: int) -> Questions:
    """Return zero-shot's questions: the items a user met before, and the one met last.

    A repeated (user, item) counts once, at its first time. Of items that share a user's last second each is the
    target in turn, with the others as members: the mean over all orders that the clock allows. Users with one item
    have no history and ask nothing.

    Args:
        user: int [n], one row an interaction, in any order.
        item: int [n].
        timestamp: int64 [n], Unix seconds or a position.
        n_items: I.
    """
    order = np.lexsort((timestamp, item, user))
    user, item, timestamp = user[order], item[order], timestamp[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (item[1:] != item[:-1])][: len(user)]
    user, item, timestamp = user[first], item[first], timestamp[first]

    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]][: len(user)])
    sizes = np.diff(np.r_[starts, len(user)])
    latest = np.repeat(np.maximum.reduceat(timestamp, starts) if len(starts) else timestamp, sizes)
    asked = np.flatnonzero((timestamp == latest) & (np.repeat(sizes, sizes) > 1))

    # question q holds all rows of its user but its own
    rows = _ranges(np.repeat(starts, sizes)[asked], np.repeat(sizes, sizes)[asked])
    owner = np.repeat(np.arange(len(asked)), np.repeat(sizes, sizes)[asked])
    kept = rows != asked[owner]
    members = _indicator(owner[kept], item[rows[kept]], (len(asked), n_items))
    return Questions(members, item[asked].astype(np.int64), np.unique(user[asked], return_inverse=True)[1])


def co_bought(user: np.ndarray, item: np.ndarray, n_items: int) -> Questions:
    """Return Item-CF's questions: an item, and the item of highest `|U_i & U_j| / sqrt(|U_i| |U_j|)`.

    Of equally close items each is the target in turn. Items that share no user with another ask nothing.

    Args:
        user: int [n], one row a *train* interaction.
        item: int [n].
        n_items: I.
    """
    members, targets = [], []
    for first, score in cooccurrence.squared(cooccurrence.bought(user, item, n_items)):
        row = cooccurrence.rows(score)
        best = score.data == score.max(axis=1).toarray().ravel()[row]
        members.append(row[best] + first)
        targets.append(score.indices[best])
    j, i = np.concatenate(members).astype(np.int64), np.concatenate(targets).astype(np.int64)
    return Questions(_indicator(np.arange(len(j)), j, (len(j), n_items)), i, np.unique(j, return_inverse=True)[1])


def content_neighbours(
    user: np.ndarray, item: np.ndarray, split: np.ndarray, n_items: int, judged_on: int = TEST
) -> Questions:
    """Return the questions of a recommender that only knows content: a user's train items, each test item a target.

    Its hit rate, averaged by user, is Recall@K of ranking all items by mean cosine to the train items, train masked.

    Args:
        user: int [n], one row an interaction.
        item: int [n].
        split: int [n], TRAIN, VALID, TEST.
        n_items: I.
        judged_on: the split that holds the targets.
    """
    train = _indicator(user[split == TRAIN], item[split == TRAIN], (int(user.max(initial=-1)) + 1, n_items))
    train.data[:] = 1.0
    asked = np.unique(np.stack([user, item], axis=1)[split == judged_on], axis=0).reshape(-1, 2)
    members = train[asked[:, 0]]
    seen = np.asarray(train[asked[:, 0], asked[:, 1]]).reshape(-1) > 0 if len(asked) else np.zeros(0, bool)
    kept = (np.diff(members.indptr) > 0) & ~seen
    return Questions(members[kept], asked[kept, 1].astype(np.int64), np.unique(asked[kept, 0], return_inverse=True)[1])


def questions(interactions: pa.Table, n_items: int) -> dict[str, Questions | str]:
    """Return what each probe of PROBES asks, or why it asks nothing.

    Args:
        interactions: schema INTERACTIONS. Zero-shot uses all of them by time or order, whatever their split;
            Item-CF train; content neighbours train and test.
        n_items: I.
    """
    user, item, split = (interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    clock = schemas.clock(interactions)
    note = "The source tells the order of a user's interactions, not their times." if clock == "order" else ""
    train = split == TRAIN
    asked: dict[str, Questions | str] = {
        "zero_shot": "the source has no real timestamps"
        if clock == "none"
        else replace(last_item(user, item, interactions["timestamp"].to_numpy(), n_items), note=note),
        "item_cf": co_bought(user[train], item[train], n_items),
        "content_knn": content_neighbours(user, item, split, n_items),
    }
    empty = {
        "zero_shot": "no user has two items",
        "item_cf": "no two items share a train user",
        "content_knn": "no user has train and test items",
    }
    return {k: v if isinstance(v, str) or len(v.target) else empty[k] for k, v in asked.items()}


def answers(
    asked: Mapping[str, Questions | str],
    classes: categories.Labels | None,
    sets: Iterable[tuple[str, np.ndarray]],
    ks: Sequence[int],
    seed: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Return probe -> feature set -> hits [G, len(ks)] of its groups; for `categories` what was right, bool [n].

    Args:
        asked: see `questions`.
        classes: see `categories.labels`.
        sets: name and float32 [I, F] of each feature set; one is held at a time.
        ks: cutoffs.
        seed: of the folds of the linear probe.
    """
    found: dict[str, dict[str, np.ndarray]] = {probe: {} for probe in [*asked, "categories"]}
    posed = {probe: question for probe, question in asked.items() if isinstance(question, Questions)}
    whole = joined(list(posed.values())) if posed else None
    ends = np.cumsum([question.groups for question in posed.values()])
    for name, features in sets:
        if whole is not None:
            parts = np.split(hits(features, whole, ks), ends[:-1])
            for probe, part in zip(posed, parts, strict=True):
                found[probe][name] = part
        if classes is not None:
            found["categories"][name] = categories.accuracy(features, classes, seed)
    return found


def summaries(
    asked: Mapping[str, Questions | str],
    classes: categories.Labels | None,
    found: Mapping[str, Mapping[str, np.ndarray]],
    ks: Sequence[int],
) -> dict[str, Any]:
    """Return probe -> feature set -> figures (see `summary`), or `{"skipped": reason}`; arguments as for `answers`."""
    out: dict[str, Any] = {
        probe: {"skipped": question}
        if isinstance(question, str)
        else summary(question, found[probe], ks, *PROBES[probe])
        for probe, question in asked.items()
    }
    return out | {"categories": categories.summary(classes, found["categories"])}


def joined(asked: Sequence[Questions]) -> Questions:
    """Return the questions of several probes as one, their groups numbered on, so that one pass answers them all."""
    offsets = np.cumsum([0, *(question.groups for question in asked)])
    return Questions(
        sparse.vstack([question.members for question in asked], format="csr"),
        np.concatenate([question.target for question in asked]),
        np.concatenate([question.group + offset for question, offset in zip(asked, offsets, strict=False)]),
    )


def hits(features: np.ndarray, asked: Questions, ks: Sequence[int], scores_held: int = 1 << 23) -> np.ndarray:
    """Return how often each group's target is in the top K: float64 [G, len(ks)], in [0, 1].

    Args:
        features: float32 [I, F], finite; a row of zeros is equally far from everything.
        asked: N questions.
        ks: cutoffs.
        scores_held: doubles in the blocks of scores at hand, which bounds memory; changes speed, not results. Few are
            fast: the sparse product gathers rows of a block, which should fit the processor's cache.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError(f"features: row {int((~np.isfinite(features).all(axis=1)).argmax())} is not finite")
    unit = unit_rows(features)[0].astype(np.float64)  # a score and its rank come from different products: see TIE
    members = asked.members.astype(np.float64)
    by_item = members.tocsc()
    size = np.diff(members.indptr)
    own = _own_scores(unit, members, asked.target, max(1, scores_held // unit.shape[1]))
    low, high = ((own + slack * size)[:, None] for slack in (-TIE, TIE))
    block = max(1, scores_held // pool.CORES // (len(size) + len(unit)))

    def counted(at: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how many items of the block that begins at `at` are above the target, and how many not below it."""
        scores = members @ (unit @ unit[at : at + block].T)  # [N, block], the sum of the members' cosines
        ends = by_item.indptr[at : at + scores.shape[1] + 1]
        column = np.repeat(np.arange(scores.shape[1]), np.diff(ends))
        scores[by_item.indices[ends[0] : ends[-1]], column] = -np.inf
        return np.count_nonzero(scores > high, axis=1), np.count_nonzero(scores >= low, axis=1)

    better, tied = np.zeros(len(size), np.int64), np.zeros(len(size), np.int64)
    for above, reached in pool.threads(counted, range(0, len(unit), block)):
        better += above
        tied += reached
    tied -= better
    found = np.clip((np.asarray(ks)[None, :] - better[:, None]) / tied[:, None], 0, 1)  # [N, len(ks)]
    return _group_means(found, asked.group)


def _own_scores(unit: np.ndarray, members: sparse.csr_array, target: np.ndarray, block: int) -> np.ndarray:
    """Return the sum of the cosines of each question's members to its target, float64 [N]."""
    parts = [slice(at, at + block) for at in range(0, len(target), block)]
    return np.concatenate([np.einsum("nf,nf->n", members[part] @ unit, unit[target[part]]) for part in parts])


def chance(asked: Questions, ks: Sequence[int]) -> np.ndarray:
    """Return the hit rates of a random order of the candidates: float64 [len(ks)]."""
    candidates = asked.members.shape[1] - np.diff(asked.members.indptr)
    return _group_means(np.minimum(np.asarray(ks)[None, :] / candidates[:, None], 1), asked.group).mean(axis=0)


def summary(
    asked: Questions, sets: Mapping[str, np.ndarray], ks: Sequence[int], unit: str, figure: str
) -> dict[str, Any]:
    """Return `{unit: G, "chance": {"hit@K": ...}, <feature set>: {"hit@K": mean, ..., "hit@K_se": standard error}}`.

    Args:
        asked: the questions.
        sets: feature set -> hits [G, len(ks)].
        ks: cutoffs.
        unit: what a group is: users or items.
        figure: hit or recall.
    """
    groups = asked.groups
    out: dict[str, Any] = {unit: groups} | ({"note": asked.note} if asked.note else {})
    out["chance"] = {f"{figure}@{k}": _rounded(v) for k, v in zip(ks, chance(asked, ks), strict=True)}
    for name, found in sets.items():
        mean, se = found.mean(axis=0), found.std(axis=0) / np.sqrt(groups)
        values = {f"{figure}@{k}": _rounded(v) for k, v in zip(ks, mean, strict=True)}
        out[name] = values | {f"{figure}@{k}_se": _rounded(v) for k, v in zip(ks, se, strict=True)}
    return out


def _indicator(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(row), np.float32), (row, column)), shape=shape)


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return start, start + 1, ... start + size - 1 of every pair, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes - starts, sizes)


def _group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the mean of the rows of each group: [N, n] -> [G, n]."""
    means = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
    return (means @ values) / np.bincount(group)[:, None]


def _rounded(value: float) -> float:
    return round(float(value), 6)
