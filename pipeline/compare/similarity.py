"""How feature sets are shaped, how alike every two are, and which items have other neighbours."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.compare import geometry, order
from pipeline.compare.feature_set import FeatureSet
from pipeline.ops import shapes
from pipeline.probe import sampled
from pipeline.seeds import seed_for

NEIGHBOURS = 10


def compared(sets: Sequence[FeatureSet], changed: int, others: Iterable[FeatureSet] = ()) -> dict[str, Any]:
    """Return each set's shape, the similarity and most changed items of every two, and whose order looks wrong.

    Neighbours are those of all items, or of a large catalogue of those that are drawn: then `sampled` says how many,
    and `overlap_se` is the standard error.

    Args:
        changed: items named per pair.
        others: see order.doubtful.
    """
    items = len(sets[0].vectors)
    k, rows = min(NEIGHBOURS, items - 1), sampled.rows(items, seed_for("compare", "neighbours"))
    neighbours = {g.name: geometry.neighbours(g.vectors, k, rows) for g in sets}
    spectra = {g.name: shapes.spectrum(g.vectors) for g in sets}
    pairs = []
    for a, b in combinations(sets, 2):
        share = geometry.overlap(neighbours[a.name], neighbours[b.name])
        lowest = np.argsort(share, kind="stable")[:changed]
        cka = shapes.linear_cka(a.vectors, b.vectors, spectra[a.name], spectra[b.name])
        drawn = {"sampled": len(rows), "overlap_se": round(float(share.std() / len(rows) ** 0.5), 6)}
        pairs.append(
            {
                "a": a.name,
                "b": b.name,
                "neighbours": k,
                "overlap": round(float(share.mean()), 6),
                **(drawn if len(rows) < items else {}),
                "cka": round(cka, 6),
                "most_changed": [{"item_id": int(rows[i]), "overlap": round(float(share[i]), 6)} for i in lowest],
            }
        )
    found = {g.name: shapes.shape(g.vectors, spectra[g.name])._asdict() for g in sets}
    rounded = {n: {k: round(v, 6) if isinstance(v, float) else v for k, v in s.items()} for n, s in found.items()}
    return {"sets": rounded, "pairs": pairs, "order": order.doubtful(sets, rows, neighbours, others)}
