"""Linear probe: an item's category, predicted from its features by a linear classifier.

An encoder that read the category in the item's text knows the answer: such feature sets are withheld.

Ridge regression onto one-hot labels, closed form, five folds; the penalty is chosen inside each fold's training part.
I items, F feature width, C classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import io
from pipeline.layout import Layout
from pipeline.probe.base import Data, Probe, Relearned

FOLDS = 5
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""times the mean variance of a feature, times the rows"""
WIDEST = 1024
"""features wider than this are first projected to it at random, which nearly keeps their geometry: solving
costs F^3, which takes minutes at 4096"""
SMALLEST = 10
"""items a class must have"""
SHUFFLED = "shuffled"
"""the control that has the rows of other items"""
SAME = 0.95
"""share of one label at which a level of the category path is skipped for the next"""


class Labels(NamedTuple):
    """The labels to predict."""

    rows: np.ndarray
    """int64 [n], the items that have a label, ascending"""
    label: np.ndarray
    """int64 [n], 0 .. C-1"""
    names: list[str]
    """C names, sorted"""
    unsure: tuple[str, ...] = ()
    """feature sets of which it is not known whether their encoders read the categories"""

    def answer(self, features: np.ndarray, seed: int, relearned: Relearned | None = None) -> np.ndarray:
        """Return which held-out predictions are right, see `accuracy`."""
        return accuracy(features, self, seed)

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `{items: n, classes: C, "chance": {"accuracy": of the largest class}, <feature set>: ...}`."""
        n = len(self.rows)
        largest = np.bincount(self.label).max() / n
        chance = {"accuracy": round(float(largest), 6)}
        out: dict[str, Any] = {"items": n, "classes": len(self.names), "chance": chance}
        if self.unsure:
            out["note"] = f"Whether the encoder of {', '.join(self.unsure)} read the categories is not known."
        for name, right in sets.items():
            p = float(right.mean())
            out[name] = {"accuracy": round(p, 6), "accuracy_se": round(float(np.sqrt(p * (1 - p) / n)), 6)}
        return out


def ask(data: Data) -> Labels | str:
    """Return the labels, or why there are none."""
    labelled = labels(data.categories)
    if labelled is None:
        return f"no level of the category path has two classes of {SMALLEST} items"
    return labelled._replace(unsure=tuple(name for name, read in data.read_categories.items() if read is None))


def withheld(data: Data) -> dict[str, str]:
    """Return the feature sets whose encoder read the categories, and why they are not asked."""
    reason = "the encoder read the categories in the text; items.text can leave them out"
    return {name: reason for name, read in data.read_categories.items() if read}


def read_by(features: pa.Table, in_text: bool) -> bool | None:
    """Return whether the encoder of a feature set read the categories; None where that is not known.

    Args:
        features: with a column has_text if its maker is known, see schema features(F).
        in_text: whether the texts hold the categories, see schemas.text_fields.
    """
    if "has_text" not in features.column_names:
        return None
    has_text = features["has_text"]
    if not pa.types.is_boolean(has_text.type) or has_text.null_count == len(has_text):
        return None
    return in_text and bool(pc.any(has_text).as_py())


def read_categories(layout: Layout, names: Iterable[str], in_text: bool) -> dict[str, bool | None]:
    """Return whether the encoder of each feature set of a dataset read the categories; see `read_by`."""
    read = {}
    for name in names:
        shards = io.shards(layout.features(name), "features")
        read[name] = read_by(pa.concat_tables([pq.read_table(p, columns=["has_text"]) for p in shards]), in_text)
    return read | ({SHUFFLED: False} if SHUFFLED in read else {})  # a control: rows and their flags of other items


def labels(paths: Sequence[Sequence[str]]) -> Labels | None:
    """Return each item's label at the first level of the category paths that tells items apart; None if none does."""
    deepest = max((len(p) for p in paths), default=0)
    for level in range(deepest):
        named = [(i, p[level]) for i, p in enumerate(paths) if len(p) > level]
        counts = Counter(name for _, name in named)
        names = sorted(name for name, n in counts.items() if n >= SMALLEST)
        if len(names) > 1 and max(counts.values()) < SAME * len(named):
            number = {name: i for i, name in enumerate(names)}
            kept = [(i, number[name]) for i, name in named if name in number]
            rows, label = (np.array(x, np.int64) for x in zip(*kept, strict=True))
            return Labels(rows, label, names)
    return None


def accuracy(features: np.ndarray, labels: Labels, seed: int) -> np.ndarray:
    """Return which held-out predictions are right, of features float32 [I, F]: bool [n], every row held out once."""
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(labels.rows)) % FOLDS
    x = features[labels.rows]
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)  # float32 [n, F]; labels are not used
    if x.shape[1] > WIDEST:
        x = x @ rng.standard_normal((x.shape[1], WIDEST), np.float32)  # [n, WIDEST]
    y = np.eye(len(labels.names), dtype=np.float32)[labels.label]
    prior = y.mean(axis=0)  # the prediction of constant features: the largest class
    y = y - prior
    parts = [fold == f for f in range(FOLDS)]
    gram = np.stack([x[p].T @ x[p] for p in parts], dtype=np.float64)  # [FOLDS, F, F]: computed once, used in every sum
    cross = np.stack([x[p].T @ y[p] for p in parts], dtype=np.float64)  # [FOLDS, F, C]
    right = np.zeros(len(x), bool)
    for f in range(FOLDS):
        inner = (f + 1) % FOLDS  # chooses the penalty
        fitted = [k for k in range(FOLDS) if k not in (f, inner)]
        scores = []
        for penalty in PENALTIES:
            w = _solved(gram[fitted].sum(0), cross[fitted].sum(0), penalty)
            scores.append(_right(x[parts[inner]] @ w + prior, labels.label[parts[inner]]).mean())
        best = PENALTIES[int(np.argmax(scores))]
        both = [*fitted, inner]
        w = _solved(gram[both].sum(0), cross[both].sum(0), best)
        right[parts[f]] = _right(x[parts[f]] @ w + prior, labels.label[parts[f]])
    return right


def _solved(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    """Return W [F, C] of ridge regression."""
    from scipy import linalg  # takes a third of a second, and reports need labels alone

    ridge = penalty * np.trace(gram) / len(gram)
    ridged = gram + (ridge if ridge > 0 else 1.0) * np.eye(len(gram))  # constant features: any penalty does
    return linalg.solve(ridged, cross, assume_a="pos")


def _right(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1) == label


CATEGORIES = Probe(
    ask,
    name="category",
    figure="accuracy",
    question="read off by a linear classifier, each item held out once",
    note="A linear classifier reads the item's category off its features; each item is held out once. Features wider "
    "than 1,024 are first projected to that width at random. Chance is the largest category. ± is the standard error "
    "over {n:,} items. An encoder that was trained on texts with categories met them, even if it reads images alone.",
    withheld=withheld,
)
