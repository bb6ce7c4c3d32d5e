"""Feature sets evaluated before any training (method.md section 5), by the probes of registry.py.

Most have one kind of question: some member items, one target. Is the target among the K nearest to the members' mean,
members left out? All such questions share one pass over a feature set, a block of candidate items at a time: no I x I
matrix is held. In a large catalogue a sample of the users or items asks, so that time grows only with the items.

Ties count by expectation: a target that shares its score with t items, after g better ones, is in the top K with
probability clip((K - g) / t, 0, 1). Constant features therefore score exactly as chance does.

N questions, U users, I items, F feature width, K cutoff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignrec.pipeline import engine
from alignrec.pipeline.ops.linalg import first_not_finite, float64_units

if TYPE_CHECKING:
    from scipy import sparse

TIE = 1e-6
"""cosines nearer than this are equal: features hold single precision, and products of equal rows differ by less"""
SCORES_HELD = 1 << 23
"""doubles held as scores, which bounds memory; no result depends on it. Fewer are faster: the sparse product gathers
rows of a block, which should fit the processor's cache."""
COSINES = 400_000_000
"""of each feature set, for one probe or one search of neighbours: 20,000 items are all compared with all"""
FEWEST = 2000  # users or items drawn from the largest catalogue


@dataclass(frozen=True)
class Questions:
    """A probe's N questions, answered in one blocked pass over a feature set."""

    members: sparse.csr_array  # [N, I], 1 where an item is one of the question's members
    target: np.ndarray  # int64 [N], the target item; never a member of its own question
    group: np.ndarray
    """int64 [N], which user (or item) a question belongs to, 0 .. G-1: groups weigh the same, whatever their size"""
    unit: str = "users"  # what a group is: users or items
    note: str = ""  # caveat of the figures

    @property
    def groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1


def sample_size(items: int) -> int:
    """Return how many users, or items with their neighbours, are compared with all items of a catalogue."""
    return max(FEWEST, COSINES // max(1, items))


def sample_ids(ids: np.ndarray, items: int, seed: int) -> np.ndarray:
    """Return all of some ids, or `sample_size` of them, ascending."""
    count = sample_size(items)
    return ids if len(ids) <= count else np.sort(np.random.default_rng(seed).choice(ids, count, replace=False))


def join_questions(questions: Sequence[Questions]) -> Questions:
    """Return the questions of several probes as one, their groups numbered on, so that one pass answers them all."""
    from scipy import sparse  # a light install, which draws a sample for `diff`, does without it

    offsets = np.cumsum([0, *(part.groups for part in questions)])
    return Questions(
        sparse.vstack([part.members for part in questions], format="csr"),
        np.concatenate([part.target for part in questions]),
        np.concatenate([part.group + offset for part, offset in zip(questions, offsets, strict=False)]),
    )


def hit_rates(features: np.ndarray, questions: Questions, ks: Sequence[int]) -> np.ndarray:
    """Return the hit rate of each group in the top K: float64 [G, len(ks)], in [0, 1].

    Features are float32 [I, F]; ValueError if one is not finite. A row of zeros is equally far from everything.
    """
    if (wrong := first_not_finite(features)) is not None:
        raise ValueError(f"features: row {wrong} is not finite")
    by_item = questions.members.astype(np.float64).tocsc()
    size = np.diff(questions.members.indptr)
    used = np.unique(questions.members.indices)
    members, unit = by_item[:, used].tocsr(), float64_units(features, used)
    # the sum of the members' cosines to the target, [N]; a score and its rank come from different products: see TIE
    step, target = max(1, SCORES_HELD // features.shape[1]), questions.target
    parts = [slice(at, at + step) for at in range(0, len(target), step)]
    scored = [np.einsum("nf,nf->n", members[part] @ unit, float64_units(features, target[part])) for part in parts]
    own = np.concatenate(scored)
    low, high = ((own + slack * size)[:, None] for slack in (-TIE, TIE))
    sums = members @ unit if len(size) <= len(features) else None  # the fewer products: by question, or by item
    block = max(1, SCORES_HELD // engine.CORES // (len(size) + (len(used) if sums is None else 0)))

    def counted(at: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how many items of the block that begins at `at` are above the target, and how many not below it."""
        columns = float64_units(features, slice(at, at + block)).T
        scores = members @ (unit @ columns) if sums is None else sums @ columns  # [N, block], sums of members' cosines
        ends = by_item.indptr[at : at + scores.shape[1] + 1]
        column = np.repeat(np.arange(scores.shape[1]), np.diff(ends))
        scores[by_item.indices[ends[0] : ends[-1]], column] = -np.inf
        return np.count_nonzero(scores > high, axis=1), np.count_nonzero(scores >= low, axis=1)

    better, tied = np.zeros(len(size), np.int64), np.zeros(len(size), np.int64)
    for above, reached in engine.threads(counted, range(0, len(features), block)):
        better += above
        tied += reached
    tied -= better
    probability = np.clip((np.asarray(ks)[None, :] - better[:, None]) / tied[:, None], 0, 1)  # [N, len(ks)]
    return _group_means(probability, questions.group)


def chance_rates(questions: Questions, ks: Sequence[int]) -> np.ndarray:
    """Return the hit rates of a random order of the candidates: float64 [len(ks)]."""
    candidates = questions.members.shape[1] - np.diff(questions.members.indptr)
    return _group_means(np.minimum(np.asarray(ks)[None, :] / candidates[:, None], 1), questions.group).mean(axis=0)


def summarise_hits(
    questions: Questions, sets: Mapping[str, np.ndarray], ks: Sequence[int], figure: str
) -> dict[str, Any]:
    """Return `{unit: G, "chance": {"hit@K": ...}, <feature set>: {"hit@K": mean, ..., "hit@K_se": standard error}}`.

    `sets` is feature set -> hits [G, len(ks)].
    """
    groups = questions.groups
    out: dict[str, Any] = {questions.unit: groups} | ({"note": questions.note} if questions.note else {})
    columns = {"chance": {"": chance_rates(questions, ks)}}
    for name, hits in sets.items():
        columns[name] = {"": hits.mean(axis=0), "_se": hits.std(axis=0) / np.sqrt(groups)}
    for name, figures in columns.items():
        rows = [(f"{figure}@{k}{end}", v) for end, of in figures.items() for k, v in zip(ks, of, strict=True)]
        out[name] = {measure: round(float(value), 6) for measure, value in rows}
    return out


def _group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the mean of the rows of each group: [N, n] -> [G, n]."""
    from scipy import sparse

    means = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
    return (means @ values) / np.bincount(group)[:, None]
