"""What a figure was measured on, as a hash: figures with different fingerprints are not comparable."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

RULES = {
    "mmrec": "full ranking, train items masked at valid and at test, mean over users with train and a target; epoch by "
    "valid recall@20 rounded to 4 decimals, strictly greater"
}
"""protocol -> how figures are computed"""


def described(name: str, interactions: pa.Table) -> dict[str, Any]:
    """Return rules, size of each split and fingerprint of a protocol.

    Args:
        name: a key of RULES.
        interactions: schema INTERACTIONS.
    """
    split = interactions["split"].to_numpy()
    sizes = {part: int(np.count_nonzero(split == i)) for i, part in enumerate(("train", "valid", "test"))}
    return {"rules": RULES[name], **sizes, "fingerprint": fingerprint(name, interactions)}


def fingerprint(name: str, interactions: pa.Table) -> str:
    """Return sha256 over the rules and every (user, item, split), whatever the order of rows."""
    columns = [interactions[c].to_numpy().astype("<i4") for c in ("user_id", "item_id", "split")]
    ordered = np.stack(columns)[:, np.lexsort(columns[::-1])]
    return hashlib.sha256(f"{name}\n{RULES[name]}\n".encode() + ordered.tobytes()).hexdigest()
