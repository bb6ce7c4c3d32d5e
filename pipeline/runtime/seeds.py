"""Seeds derived from names, so that random numbers do not depend on what ran before."""

import hashlib


def seed_for(*names: str | int) -> int:
    """Return a 63-bit seed for a name such as ("train", dataset, model, 0)."""
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
