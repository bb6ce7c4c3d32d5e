"""Nearest-neighbour questions of probes (method.md section 5): is the target among the K nearest to the members' mean?

Letters: N questions, G groups, U users, I items, F feature width, K cutoff.
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
COSINES = 400_000_000
FEWEST = 2000  # minimum sample of users or items


@dataclass(frozen=True)
class Questions:
    """A probe's N questions, answered in one blocked pass over a feature set."""

    members: sparse.csr_array  # [N, I], 1 where an item is one of the question's members
    target: np.ndarray  # int64 [N], the target item; never a member of its own question
    group: (
        np.ndarray
    )  # int64 [N], user or item that a question belongs to, 0 .. G-1; groups have equal weight
    unit: str = "users"  # what a group is: users or items
    note: str = ""  # caveat of the figures

    @property
    def groups(self) -> int:
        return int(self.group.max(initial=-1)) + 1


def sample_size(items: int) -> int:
    """Return how many users or items to compare with the whole catalogue."""
    return max(FEWEST, COSINES // max(1, items))


def sample_ids(ids: np.ndarray, items: int, seed: int) -> np.ndarray:
    """Return at most `sample_size` of the ids; a sample is sorted."""
    count = sample_size(items)
    return (
        ids
        if len(ids) <= count
        else np.sort(np.random.default_rng(seed).choice(ids, count, replace=False))
    )


def join_questions(questions: Sequence[Questions]) -> Questions:
    """Concatenate questions and renumber their groups, so that one pass answers them all."""
    from scipy import sparse  # not part of the light install, whose `diff` calls sample_ids

    offsets = np.cumsum([0, *(part.groups for part in questions)])
    return Questions(
        sparse.vstack([part.members for part in questions], format="csr"),
        np.concatenate([part.target for part in questions]),
        np.concatenate(
            [part.group + offset for part, offset in zip(questions, offsets, strict=False)]
        ),
    )


def hit_rates(features: np.ndarray, questions: Questions, ks: Sequence[int]) -> np.ndarray:
    """Return the hit rates of groups, float64 [G, len(ks)], for features float32 [I, F].

    ValueError if not finite.
    """
    if (wrong := first_not_finite(features)) is not None:
        raise ValueError(f"features: row {wrong} is not finite")

    every_question = np.arange(len(questions.target))
    every_item = np.arange(len(features))
    ranks = rank_targets(features, questions.members, every_question, questions.target, every_item)
    # expected hits over random orders of the ties, so that constant features score exactly at
    # chance
    hits = np.stack([ranks.hits(k) for k in ks], axis=1)  # [N, len(ks)]
    return _group_means(hits, questions.group)


def summarise_hits(
    questions: Questions, sets: Mapping[str, np.ndarray], ks: Sequence[int], figure: str
) -> dict[str, Any]:
    """Summarise hits, feature set -> [G, len(ks)], in the form of `Task.summary`."""
    groups = questions.groups
    out: dict[str, Any] = {questions.unit: groups} | (
        {"note": questions.note} if questions.note else {}
    )
    candidates = questions.members.shape[1] - np.diff(questions.members.indptr)
    chance = _group_means(
        np.minimum(np.asarray(ks)[None, :] / candidates[:, None], 1), questions.group
    )
    columns = {"chance": {"": chance.mean(axis=0)}}
    columns |= {
        n: {"": hits.mean(axis=0), "_se": hits.std(axis=0) / np.sqrt(groups)}
        for n, hits in sets.items()
    }
    for name, figures in columns.items():
        rows = [
            (f"{figure}@{k}{end}", v)
            for end, of in figures.items()
            for k, v in zip(ks, of, strict=True)
        ]
        out[name] = {measure: round(float(value), 6) for measure, value in rows}
    return out


def _group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Average the rows of each group: [N, n] -> [G, n]."""
    return (
        np.stack([np.bincount(group, column) for column in values.T], axis=1)
        / np.bincount(group)[:, None]
    )
