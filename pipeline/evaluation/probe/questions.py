"""Nearest-neighbour questions of probes (method.md section 5).

Is the target among the K nearest to the members' mean? Letters: N questions, G groups, U users, I
items, F feature width, K cutoff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignrec.pipeline.linalg.projections import first_not_finite
from alignrec.pipeline.linalg.ranking import rank_targets

if TYPE_CHECKING:
    from scipy import sparse

# budget per feature set and probe: catalogues of up to 20,000 items are compared in full
MAX_COSINES = 400_000_000
MIN_SAMPLE = 2000  # users or items


@dataclass(frozen=True)
class Questions:
    """A probe's N questions, answered in one blocked pass over a feature set."""

    members: sparse.csr_array  # [N, I], 1 where an item is one of the question's members
    target: np.ndarray  # int64 [N], the target item; never a member of its own question
    # int64 [N], user or item that a question belongs to, 0 .. G-1; groups have equal weight
    group: np.ndarray
    unit: str = "users"  # what a group is: users or items
    note: str = ""  # caveat of the figures

    @property
    def groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1


def sample_size(items: int) -> int:
    """Return how many users or items to compare with the whole catalogue."""
    return max(MIN_SAMPLE, MAX_COSINES // max(1, items))


def sample_ids(ids: np.ndarray, items: int, seed: int) -> np.ndarray:
    """Return at most `sample_size` of the ids; a sample is sorted."""
    count = sample_size(items)
    if len(ids) <= count:
        return ids

    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(ids, count, replace=False))


def join_questions(questions: Sequence[Questions]) -> Questions:
    """Concatenate questions and renumber their groups, so that one pass answers them all."""
    from scipy import sparse  # not part of the light install, whose `diff` calls sample_ids

    groups = []
    offset = 0
    for part in questions:
        groups.append(part.group + offset)
        offset += part.groups
    return Questions(
        sparse.vstack([part.members for part in questions], format="csr"),
        np.concatenate([part.target for part in questions]),
        np.concatenate(groups),
    )


def hit_rates(features: np.ndarray, questions: Questions, ks: Sequence[int]) -> np.ndarray:
    """Return the hit rates of groups, float64 [G, len(ks)], for features, float32 [I, F].

    ValueError if they are not finite.
    """
    if (row := first_not_finite(features)) is not None:
        raise ValueError(f"features: row {row} is not finite")

    every_question = np.arange(len(questions.target))
    every_item = np.arange(len(features))
    ranks = rank_targets(features, questions.members, every_question, questions.target, every_item)
    # ties are in random order, so that constant features score exactly at chance
    hits = np.stack([ranks.hits(k) for k in ks], axis=1)  # [N, len(ks)]
    return _group_means(hits, questions.group)


def summarise_hits(
    questions: Questions, sets: Mapping[str, np.ndarray], ks: Sequence[int], figure: str
) -> dict[str, Any]:
    """Summarise hits, feature set -> [G, len(ks)], in the form of `Task.summary`."""
    groups = questions.groups
    summary: dict[str, Any] = {questions.unit: groups}
    if questions.note:
        summary["note"] = questions.note

    candidates = questions.members.shape[1] - np.diff(questions.members.indptr)
    of_questions = np.minimum(np.asarray(ks)[None, :] / candidates[:, None], 1)
    chance = _group_means(of_questions, questions.group).mean(axis=0)
    summary["chance"] = _round_figures(figure, ks, chance)
    for name, hits in sets.items():
        means = _round_figures(figure, ks, hits.mean(axis=0))
        errors = _round_figures(figure, ks, hits.std(axis=0) / np.sqrt(groups), "_se")
        summary[name] = means | errors
    return summary


def _round_figures(
    figure: str, ks: Sequence[int], values: np.ndarray, suffix: str = ""
) -> dict[str, float]:
    pairs = zip(ks, values, strict=True)
    return {f"{figure}@{k}{suffix}": round(float(value), 6) for k, value in pairs}


def _group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Average the rows of each group: [N, n] -> [G, n]."""
    sums = np.stack([np.bincount(group, column) for column in values.T], axis=1)
    return sums / np.bincount(group)[:, None]
