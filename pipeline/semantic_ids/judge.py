"""The judge of one feature set's codes: reads what they are judged against, and probes what they reconstruct.

I items, n of them with codes, L levels, F width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.evaluation.cutoff import bounded
from pipeline.evaluation.statistics import corrected
from pipeline.items import categories
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.probe import asking, questions
from pipeline.probe.base import Data, Task
from pipeline.semantic_ids import files, quality
from pipeline.semantic_ids.base import Method
from pipeline.semantic_ids.quality import Codes, Edges, Reference

PROBED = ("zero_shot", "item_cf")
"""the probes that original and reconstructed vectors both answer"""
ROWS, BLOCK = 8192, 65_536
Questions = Mapping[str, questions.Questions | Task | str]


@dataclass(frozen=True)
class Original:
    """The vectors that were coded, and their answers to the probes."""

    probes: Questions
    k: int
    hits: Mapping[str, np.ndarray]
    """probe -> hits, float64 [G]"""


@dataclass(frozen=True)
class Judge:
    """Judges every method's codes of one feature set alike."""

    reference: Reference
    original: Original | str
    """the vectors' answers, or why the reconstruction is not probed"""
    seed: int

    def judged(self, ids: Codes, method: Method | None) -> dict[str, Any]:
        """Return what codes.json has under `quality`; `method` are the codebooks, None where they are not known."""
        facts = {"control": method is not None and method.control}
        return facts | quality.judged(ids, self.reference) | {"reconstruction": self._reconstruction(ids, method)}

    def _reconstruction(self, ids: Codes, method: Method | None) -> dict[str, Any]:
        """Return figures of each probe with reconstructed and original vectors, or why there are none.

        The difference is reconstructed - original, with its 95 % interval and p by paired bootstrap after Holm.
        """
        if method is None or isinstance(self.original, str):
            return {"skipped": "no codebooks" if method is None else str(self.original)}
        decoded = _decoded(method, ids, self.reference.items)
        if not decoded.any():
            return {"skipped": "the codes stand for no vector"}
        probes, k = self.original.probes, self.original.k
        answers = _hits(probes, decoded, k, self.seed)
        tested = [(probe, "reconstructed", "original", answers[probe], x) for probe, x in self.original.hits.items()]
        rows = {row["measure"]: row for row in corrected(tested, self.seed)} if tested else {}
        cosine = {} if ids.cosine is None else {"cosine": round(float(ids.cosine.mean(dtype=np.float64)), 6)}
        return cosine | {probe: _row(asked, k, rows.get(probe)) for probe, asked in probes.items()}


def read(layout: Layout, features: str, seed: int, probed_items: int) -> Judge:
    """Return the judge of a feature set; above `probed_items` none is probed. UserError says which stage is to run."""
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    paths = io.read_table(layout.items, schemas.ITEMS, ["categories"])["categories"].to_pylist()
    folder = layout.features(features)
    vectors = io.matrix(io.read_features(folder)["vector"]) if len(paths) <= probed_items else None
    return against(interactions, paths, Stored(layout.edges(features)), vectors, seed)


def inputs(layout: Layout, features: str) -> list[Path]:
    return io.present([layout.interactions, layout.items, layout.edges(features)])


def against(
    interactions: pa.Table, paths: list[list[str]], near: Edges, vectors: np.ndarray | None, seed: int
) -> Judge:
    """Return a judge by interactions, categories from the root, neighbours, and original vectors, float32 [I, F].

    `vectors` are None where there are none, or too many to probe.
    """
    user, item, split = (interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    train = split == schemas.TRAIN
    label = np.full(len(paths), -1, np.int64)
    if (labelled := categories.labels(paths)) is not None:
        label[labelled.rows] = labelled.label
    reference = Reference(len(paths), near, user[train], item[train], label)
    if vectors is None:
        return Judge(reference, f"not probed with {len(paths):,} items", seed)
    probes = asking.ask(Data(interactions, len(paths)), PROBED)
    k = bounded(len(paths))
    return Judge(reference, Original(probes, k, _hits(probes, vectors, k, seed)), seed)


def codes(ids: pa.Table, k: int, before: np.ndarray | None = None) -> Codes:
    rows, matrix = files.matrix(ids)
    suffix, cosine = ids["suffix"].drop_null().to_numpy(), ids["cosine"].drop_null().to_numpy()
    return Codes(rows, matrix, k, suffix if len(suffix) else None, before, cosine)


@dataclass(frozen=True)
class Stored:
    """Items and neighbours of a table EDGES, int32 [b] each, a block in memory at a time."""

    path: Path

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(BLOCK, columns=["item_id", "neighbour_id"]):
                yield batch["item_id"].to_numpy(), batch["neighbour_id"].to_numpy()


def _decoded(method: Method, ids: Codes, items: int) -> np.ndarray:
    """Return the reconstructions, float32 [I, F] of length 1; zeros for items without codes."""
    parts = [method.decode(ids.codes[at : at + ROWS]) for at in range(0, len(ids.codes), ROWS)]
    vectors = np.zeros((items, parts[0].shape[1] if parts else 1), np.float32)
    if parts:
        vectors[ids.rows] = unit_rows(np.concatenate(parts))[0]
    return vectors


def _hits(probes: Questions, vectors: np.ndarray, k: int, seed: int) -> dict[str, np.ndarray]:
    """Return probe -> hits at K of its groups, float64 [G], of the probes that have questions."""
    answers = asking.answers(probes, [("vectors", vectors)], [k])
    return {probe: of_sets["vectors"][:, 0] for probe, of_sets in answers.items() if of_sets}


def _row(asked: questions.Questions | Task | str, k: int, test: Mapping[str, Any] | None) -> dict[str, Any]:
    if test is None or not isinstance(asked, questions.Questions):
        return {"skipped": asked if isinstance(asked, str) else "no questions"}
    means = {"original": test["mean_b"], "reconstructed": test["mean_a"]}
    chance = float(questions.chance(asked, [k])[0])
    figures = means | {"chance": chance} | {key: test[key] for key in ("difference", "low", "high", "p_holm")}
    return {"measure": f"hit@{k}", asked.unit: asked.groups} | {key: round(v, 6) for key, v in figures.items()}
