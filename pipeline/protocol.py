"""How models are judged, as one value: what its name and fingerprint stand for can be told apart, and is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.split import Pairs, Split, union

Rule = Literal["mmrec", "strict"]


@dataclass(frozen=True)
class Protocol:
    """Numbers compare only if all of this is the same (method.md section 6)."""

    rule: Rule
    """what is masked at test: mmrec only train, as published tables do; strict train and valid"""
    split: str
    """how each user's interactions were divided: `interactions.protocol`"""
    candidates: str = "all items"
    users: str = "with train and with a target"
    epoch: str = "first best valid recall@20, rounded to 4 decimals"

    @property
    def name(self) -> str:
        """The column's heading: `mmrec` is the published protocol; anything else says in what it differs."""
        return self.rule if self.split == "mmrec" else f"{self.rule}, {self.split}"

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def masked(self, split: Split, which: Literal["valid", "test"]) -> Pairs:
        """Return the pairs that are never recommended when `which` holds the targets."""
        if which == "test" and self.rule == "strict":
            return union(split.train, split.valid, split.n_items)
        return split.train
