"""What features could gain at most, by the planted preferences and by a leak (docs/sample.md).

Command: `python -m experiments.ceilings sample`. I items, F width, n planted rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from scipy import sparse

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.evaluation.probe.judge import answer_sets, build_tasks, summarise_answers
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import JOINT_WIDTH, right_vectors
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES, variant
from experiments.shared import opened, read_probe_data, read_vectors, record

PREFERENCES = Path(__file__).with_name("planted.parquet")  # of `sample`: item, what shoppers see
MOTIVES = (0.45, 0.40, 0.15)  # probability that a shopper chooses by theme, by look, by neither
COARSE = 0.03  # weight of the category and of the colour alone, relative to theme and look
CHANCE, SHUFFLED, LEAKED, PLANTED = "chance", "shuffled", "leaked", "planted"
ADDED = " + "  # between a feature set and one of its modalities
PLANTED_NOTE = (
    "The shoppers are synthetic, so the ground truth is known: the planted preferences. Each cell: "
    "share of the gap between chance and the ground truth, raw features, headline figures. "
    "`A + image`: what images add to the texts of A, as a share of what planted images add to "
    "planted texts; `A + text` likewise."
)
LEAKED_NOTE = (
    "`leaked` holds factors of all interactions, test included: what features could gain. Each "
    "cell: share of the gap between `shuffled` and `leaked`, raw features, headline figures. It "
    "knows what the probe of cold items hides."
)
BySet = Mapping[str, float]  # feature set or chance -> figure


def planted_sets(layout: Layout) -> dict[str, np.ndarray]:
    """Return the planted preferences, whole and without each modality, float32 [I, F] each."""
    text, image = planted_halves(layout)
    return {
        PLANTED: np.hstack([text, image]),
        variant(PLANTED, "image"): np.hstack([text, 0 * image]),
        variant(PLANTED, "text"): np.hstack([0 * text, image]),
    }


def planted_halves(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return indicators of text and image, float32 [I, F] each.

    Shoppers choose by theme (subcategory) or look (colour and shape), sometimes by the coarser
    category or colour. With these weights, the dot product of two items is the probability that a
    shopper who chose one chooses the other, apart from popularity.
    """
    planted = pq.read_table(PREFERENCES)
    row_of = {asin: row for row, asin in enumerate(planted["asin"].to_pylist())}
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    if not row_of.keys() >= {*asins}:
        raise UserError(
            f"{layout.dataset} is not the embedded dataset, whose preferences are known"
        )

    theme, look, _ = MOTIVES
    text = [
        scale_indicators(planted, "subcategory", theme),
        scale_indicators(planted, "category", COARSE * theme),
    ]
    image = [
        scale_indicators(planted, "look", look),
        scale_indicators(planted, "colour", COARSE * look),
    ]
    rows = [row_of[asin] for asin in asins]
    return np.hstack(text)[rows], np.hstack(image)[rows]


def scale_indicators(planted: pa.Table, column: str, weight: float) -> np.ndarray:
    """Return a column per value, float32 [n, values], whose squares sum to `weight`."""
    number = planted[column].to_numpy()
    size = np.bincount(number)
    indicators = np.eye(len(size), dtype=np.float32)[number]
    return indicators * np.sqrt(weight / size[number]).astype(np.float32)[:, None]


def leaked_factors(layout: Layout, seed: int) -> np.ndarray:
    """Return factors of all interactions, those of test included, float32 [I, F]."""
    user, item = read_probe_data(layout).columns("user_id", "item_id")
    n_items = io.rows([layout.item_ids])
    matrix = user_item_matrix(user, item, n_items)
    return collaborative_factors(matrix, JOINT_WIDTH, seed).astype(np.float32)


def collaborative_factors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` factors of the items of `matrix`, float32 [U, I], as float64 [I, F].

    They are right singular vectors of the matrix, with rows and columns divided by the roots of
    their counts; zero for items without users.
    """
    counts = matrix.astype(np.float64)
    users, items = counts.sum(axis=1), counts.sum(axis=0)
    by_user = sparse.diags_array(1 / np.sqrt(np.maximum(1, users)))
    by_item = sparse.diags_array(1 / np.sqrt(np.maximum(1, items)))
    scaled = (by_user @ counts @ by_item).tocsr()

    vectors = right_vectors(sparse.csr_array(scaled[:, items > 0]), width, seed)
    factors = np.zeros((len(items), vectors.shape[1]))
    factors[items > 0] = vectors * np.sqrt(len(vectors))
    return factors


def shares_between(by_set: BySet, floor: str, ceiling: str) -> dict[str, float]:
    """Return figures as fractions of the way from floor to ceiling."""
    gap = by_set[ceiling] - by_set[floor]
    return {name: (figure - by_set[floor]) / gap for name, figure in by_set.items()}


def shares_of_modalities(by_set: BySet) -> dict[str, float]:
    """Return gains from adding a modality, as fractions of the gain from the planted one."""
    shares = {}
    for modality in MODALITIES:
        gap = by_set[PLANTED] - by_set[variant(PLANTED, modality)]
        for name, figure in by_set.items():
            masked = variant(name, modality)
            if masked in by_set:
                shares[f"{name}{ADDED}{modality}"] = (figure - by_set[masked]) / gap
    return shares


def tabulate(note: str, names: list[str], shares: Mapping[str, BySet]) -> Table:
    """Return a table of shares by probe, of sets first and then of their modalities."""
    first = next(iter(shares.values()))
    names = sorted(names, key=lambda name: (ADDED in name, -first[name]))
    rows = [[name, *(f"{of[name]:z.0%}" for of in shares.values())] for name in names]
    return Table("", note, ("feature set", *shares), rows)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = ["linear", "beit3", "minilm-cnn"],  # noqa: B006
) -> None:
    """Record how far feature sets get from chance to the ground truth, and towards a leak."""
    parameters, layout, _ = opened(dataset, params, root, "ceilings")
    made = layout.feature_sets()
    masked = [variant(name, modality) for name in features for modality in MODALITIES]
    judged = [*features, SHUFFLED, *(name for name in masked if name in made)]
    sets = {name: read_vectors(layout, name) for name in judged} | planted_sets(layout)
    sets[LEAKED] = leaked_factors(layout, seed_for("leaked", dataset, parameters[Combine].seed))

    tasks = build_tasks(read_probe_data(layout))
    answers, _ = answer_sets(tasks, sets.items(), [CUTOFF])
    to_truth: dict[str, dict[str, float]] = {}
    to_leak: dict[str, dict[str, float]] = {}
    for key, summary in summarise_answers(tasks, answers, [CUTOFF]).items():
        if "skipped" in summary:
            continue
        probe = PROBES[key]
        by_set = {name: summary[name][probe.figure] for name in (CHANCE, *sets)}
        to_truth[probe.name] = shares_between(by_set, CHANCE, PLANTED) | shares_of_modalities(
            by_set
        )
        to_leak[probe.name] = shares_between(by_set, SHUFFLED, LEAKED)

    added = [f"{name}{ADDED}{modality}" for name in features for modality in MODALITIES]
    added = [name for name in added if name in next(iter(to_truth.values()))]
    record(
        layout,
        "ceilings",
        tabulate(PLANTED_NOTE, [LEAKED, *features, *added], to_truth),
        tabulate(LEAKED_NOTE, [LEAKED, *features], to_leak),
    )


if __name__ == "__main__":
    typer.run(main)
