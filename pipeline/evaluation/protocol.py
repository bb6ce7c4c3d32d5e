"""Evaluation protocols, identified by a name and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from alignrec.pipeline.dataset.split import Pairs, Part, Split, has_cold_items, unite_pairs
from alignrec.pipeline.models.cutoff import ALL, COLD, CUTOFF

Rule = Literal["mmrec", "strict"]
SELECTION = f"first epoch of best valid recall@{CUTOFF}"

METRIC_DEFINITIONS = {
    "recall": "hits / |T|",
    "ndcg": "sum_i h_i / log2(i+1) over the same sum of min(K,|T|) hits",
    "precision": "hits / K",
    "map": "sum_i h_i precision@i / min(K,|T|)",
}  # metric -> definition; K cutoff, T targets of a user, h_i = 1 if the i-th recommendation is in T


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol (method.md section 6); figures compare only under equal protocols."""

    # items masked at test: those in train (mmrec, as in published tables), or in train and valid
    # (strict)
    rule: Rule
    split: str  # how interactions are split: `interactions.protocol`, or `imported`
    filter: str  # filter of ratings, users and items
    # SHA-256 of the number of items and all (user, item) pairs by part, over all draws
    questions: str
    candidates: str = ALL
    users: str = "with train and with a target"
    selection: str = SELECTION
    metrics: Mapping[str, str] = field(default_factory=lambda: dict(METRIC_DEFINITIONS))
    version: int = 1  # incremented by changes in meaning that no other field reflects

    @property
    def name(self) -> str:
        """Heading of tables: `mmrec` for the published protocol, otherwise its differences."""
        parts: list[str] = [self.rule]
        if self.split != "mmrec":
            parts.append(self.split)
        if self.has_cold_items:
            parts.append(self.candidates)
        return ", ".join(parts)

    @property
    def has_cold_items(self) -> bool:
        return has_cold_items(self.split)

    @property
    def fingerprint(self) -> str:
        settings = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    @property
    def label(self) -> dict[str, str]:
        return {"protocol": self.name, "fingerprint": self.fingerprint}

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "fingerprint": self.fingerprint, **asdict(self)}

    @property
    def variants(self) -> tuple[Protocol, ...]:
        """Protocols that evaluate a model: this one and, for cold items, also on all items."""
        if self.candidates == COLD:
            return self, replace(self, candidates=ALL)
        return (self,)

    @property
    def suffix(self) -> str:
        """Suffix of result files; empty except for the second of `variants`."""
        return "-all-items" if self.candidates == ALL and self.has_cold_items else ""

    def ranked_items(self, split: Split, which: Part) -> np.ndarray | None:
        """Return the items ranked for targets in `which`, int32, ascending; None for all."""
        return split.cold_items(which) if self.candidates == COLD else None

    def seen_pairs(self, split: Split, which: Part) -> Pairs:
        if which == "test" and self.rule == "strict":
            return unite_pairs(split.train, split.valid, split.n_items)
        return split.train


def selecting_protocol(
    rule: Rule, division: str, filtering: str, split: Split, *draws: Split
) -> Protocol:
    """Return the protocol that selects epochs; `draws` are further splits than `split`."""
    questions = hash_questions(split)
    if draws:
        division = f"{division} in {1 + len(draws)} draws"
        hashes = [questions, *map(hash_questions, draws)]
        questions = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    protocol = Protocol(rule, division, filtering, questions)
    if not split.has_cold_items:
        return protocol

    # few cold items would reach the top 20 of all items, so they are ranked among themselves
    return replace(protocol, candidates=COLD, selection=f"{SELECTION} among {COLD}")


def hash_questions(split: Split) -> str:
    total = hashlib.sha256(str(split.n_items).encode())
    for pairs in (split.train, split.valid, split.test):
        total.update(f"\n{len(pairs)}\n".encode())
        total.update(pairs.users.astype("<i4").tobytes())
        total.update(pairs.items.astype("<i4").tobytes())
    return total.hexdigest()
