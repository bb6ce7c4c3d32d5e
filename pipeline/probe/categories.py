"""Linear probe: an item's category, predicted from its features by a linear classifier.

An encoder that read the category in the item's text knows the answer: such feature sets are withheld.

Ridge regression onto one-hot labels, closed form, five folds; the penalty is chosen inside each fold's training part.
I items, F feature width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import io
from pipeline.layout import Layout
from pipeline.probe.base import Data, Probe, Relearned

FOLDS = 5
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # times the mean variance of a feature, times the rows
WIDEST = 1024
"""features wider than this are first projected to it at random, which nearly keeps their geometry: solving
costs F^3, which takes minutes at 4096"""
ROWS = 16_384  # items at a time, which bounds memory
SMALLEST = 10  # items a class must have
SHUFFLED = "shuffled"  # the control that has the rows of other items
SAME = 0.95  # share of one label at which a level of the category path is skipped for the next


class Labels(NamedTuple):
    """The labels to predict."""

    rows: np.ndarray  # int64 [n], the items that have a label, ascending
    label: np.ndarray  # int64 [n], 0 .. C-1
    names: list[str]  # C names, sorted
    unsure: tuple[str, ...] = ()  # feature sets whose encoders may have read the categories

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


def labels(paths: pa.Array | pa.ChunkedArray | Sequence[Sequence[str]]) -> Labels | None:
    """Return each item's label at the first level of the category paths that has several classes; None if none has."""
    if not isinstance(paths, pa.Array | pa.ChunkedArray):
        paths = pa.array(paths, pa.list_(pa.string()))
    lengths = pc.list_value_length(paths).fill_null(0).to_numpy()
    for level in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > level)
        named = pc.list_element(paths.take(pa.array(rows)), level)
        counts = {count["values"]: count["counts"] for count in pc.value_counts(named).to_pylist()}
        names = sorted(name for name, n in counts.items() if n >= SMALLEST)
        if len(names) > 1 and max(counts.values()) < SAME * len(rows):
            label = pc.index_in(named, pa.array(names))
            kept = label.is_valid().to_numpy(zero_copy_only=False)
            return Labels(rows[kept], label.drop_null().to_numpy().astype(np.int64), names)
    return None


def accuracy(features: np.ndarray, labels: Labels, seed: int) -> np.ndarray:
    """Return which held-out predictions are right, of features float32 [I, F]: bool [n], every row held out once."""
    items = _Standardised.of(features, labels, np.random.default_rng(seed))
    gram, cross = items.products()
    right = np.zeros(len(labels.rows), bool)
    maps, inner = [], np.arange(1, FOLDS + 1) % FOLDS  # the fold that chooses the penalty of each
    for f in range(FOLDS):
        fitted = [k for k in range(FOLDS) if k not in (f, inner[f])]
        maps.append([_solved(gram[fitted].sum(0), cross[fitted].sum(0), penalty) for penalty in PENALTIES])
    hits = np.zeros((FOLDS, len(PENALTIES)))
    for fold, x, label, _ in items.blocks():
        for f in range(FOLDS):
            mine = fold == inner[f]
            hits[f] += [_right(x[mine] @ w + items.prior, label[mine]).sum() for w in maps[f]]
    best = []
    for f in range(FOLDS):
        both = [k for k in range(FOLDS) if k != f]
        best.append(_solved(gram[both].sum(0), cross[both].sum(0), PENALTIES[int(hits[f].argmax())]))
    for fold, x, label, at in items.blocks():
        for f in range(FOLDS):
            mine = fold == f
            right[at + np.flatnonzero(mine)] = _right(x[mine] @ best[f] + items.prior, label[mine])
    return right


class _Standardised(NamedTuple):
    """Labelled items, centred and scaled a block at a time; labels are not used for that."""

    features: np.ndarray
    labels: Labels
    fold: np.ndarray  # int64 [n], 0 .. FOLDS - 1
    mean: np.ndarray
    deviation: np.ndarray
    prior: np.ndarray  # float32 [C], the prediction of constant features: the shares of the classes
    projection: np.ndarray | None

    @classmethod
    def of(cls, features: np.ndarray, labels: Labels, rng: np.random.Generator) -> _Standardised:
        n, width = len(labels.rows), features.shape[1]
        fold = rng.permutation(n) % FOLDS
        blocks = [labels.rows[at : at + ROWS] for at in range(0, n, ROWS)]
        mean = sum(features[rows].sum(axis=0, dtype=np.float64) for rows in blocks) / n
        variance = sum(np.square(features[rows] - mean).sum(axis=0) for rows in blocks) / n
        deviation = np.maximum(np.sqrt(variance), 1e-6)
        prior = np.bincount(labels.label, minlength=len(labels.names)) / n
        projection = rng.standard_normal((width, WIDEST), np.float32) if width > WIDEST else None
        moments = [v.astype(np.float32) for v in (mean, deviation, prior)]
        return cls(features, labels, fold, moments[0], moments[1], moments[2], projection)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        """Yield folds [b], rows float32 [b, F or WIDEST] and labels [b] of some items, and the place of the first."""
        for at in range(0, len(self.labels.rows), ROWS):
            part = slice(at, at + ROWS)
            x = (self.features[self.labels.rows[part]] - self.mean) / self.deviation
            yield self.fold[part], x if self.projection is None else x @ self.projection, self.labels.label[part], at

    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Return X^T X, float64 [FOLDS, F, F], and X^T Y, [FOLDS, F, C], of each fold; Y one-hot less the prior."""
        width = self.features.shape[1] if self.projection is None else WIDEST
        gram, cross = (np.zeros((FOLDS, width, columns)) for columns in (width, len(self.prior)))
        for fold, x, label, _ in self.blocks():
            y = np.eye(len(self.prior), dtype=np.float32)[label] - self.prior
            for f in range(FOLDS):
                mine = fold == f
                gram[f] += x[mine].T @ x[mine]
                cross[f] += x[mine].T @ y[mine]
        return gram, cross


def _solved(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    """Return W [F, C] of ridge regression."""
    from scipy import linalg  # takes a third of a second, and reports only need labels

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
    "over {n:,} items. An encoder that was trained on texts with categories met them, even if it only reads images.",
    withheld=withheld,
)
