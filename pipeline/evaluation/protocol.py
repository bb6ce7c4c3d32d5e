"""How models are evaluated, as one value with a name and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.evaluation.cutoff import CUTOFF
from pipeline.interactions.split import Pairs, Split, union
from pipeline.params import Params

Rule = Literal["mmrec", "strict"]

METRICS = {
    "recall": "hits / |T|",
    "ndcg": "sum_i h_i / log2(i+1) over the same sum of min(K,|T|) hits",
    "precision": "hits / K",
    "map": "sum_i h_i precision@i / min(K,|T|)",
}
"""metric -> its definition: K cutoff, T a user's targets, h_i = 1 if the i-th recommended item is one of them"""


@dataclass(frozen=True)
class Protocol:
    """Numbers compare only if all of this is the same (method.md section 6)."""

    rule: Rule
    """what is masked at test: mmrec train alone, as published tables do; strict train and valid"""
    split: str
    """how each user's interactions were divided: `interactions.protocol`, or `imported` by a column of the source"""
    filter: str
    """which ratings, users and items were kept"""
    questions: str
    """sha256 of the catalogue's size and every (user, item) of train, valid and test"""
    candidates: str = "all items"
    users: str = "with train and with a target"
    selection: str = f"first epoch of best valid recall@{CUTOFF}"
    metrics: Mapping[str, str] = field(default_factory=lambda: dict(METRICS))
    version: int = 1
    """counts changes of meaning that no other field shows"""

    @property
    def name(self) -> str:
        """A table's heading: `mmrec` is the published protocol; any other name says how it differs."""
        return self.rule if self.split == "mmrec" else f"{self.rule}, {self.split}"

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> dict[str, str]:
        """The columns of every record and table: protocol (its name) and fingerprint."""
        return {"protocol": self.name, "fingerprint": self.fingerprint}

    def described(self) -> dict[str, Any]:
        """Return name, fingerprint and all fields, for JSON."""
        return {"name": self.name, "fingerprint": self.fingerprint, **asdict(self)}

    def seen(self, split: Split, which: Literal["valid", "test"]) -> Pairs:
        """Return the pairs that are never recommended when `which` holds the targets."""
        if which == "test" and self.rule == "strict":
            return union(split.train, split.valid, split.n_items)
        return split.train


def protocol(params: Params, dataset: str, split: Split) -> Protocol:
    """Return the protocol under which the models of one dataset are judged."""
    settings, published = params.interactions, params.source(dataset).has_split
    cores = f"users >= {settings.user_core}, items >= {settings.item_core}, repeatedly"
    kept = "as imported" if published or split.own else cores
    if settings.min_rating is not None:
        kept = f"ratings >= {settings.min_rating:g}, {kept}"
    division = "mmrec" if published else "imported" if split.own else settings.protocol
    return Protocol(params.benchmark.protocol, division, kept, questions(split))


def questions(split: Split) -> str:
    """Return sha256 over the size of the catalogue and the pairs of the three parts."""
    total = hashlib.sha256(str(split.n_items).encode())
    for pairs in (split.train, split.valid, split.test):
        total.update(f"\n{len(pairs)}\n".encode())
        total.update(pairs.users.astype("<i4").tobytes() + pairs.items.astype("<i4").tobytes())
    return total.hexdigest()
