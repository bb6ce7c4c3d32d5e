"""The long tail, on figures whose groups are obvious."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shops
import toy
from shops import interactions

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.benchmark import slices
from alignrec.pipeline.benchmark.cell import Entry, list_runs, rankings_path
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.evaluation.metrics import judge_rankings
from alignrec.pipeline.evaluation.statistics import holm
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.interactions import split

SETTINGS = toy.params(train={"features": "f"}, benchmark={"ks": [5, 20], "seeds": 2}, study={"tail": True})


def written(root: Path, right: dict[tuple[str, str], set[int]]) -> pa.Table:
    """Write a benchmark where a contender ranks the target first for the numbered users; return table TAIL."""
    layout, parts = shops.outputs(root), shops.two_tastes()
    users = np.unique(parts.test.users)
    keys = {Entry(*name, seed): f"{n}{seed}" for n, name in enumerate(right) for seed in range(2)}
    io.write_json(layout.runs, list_runs(keys))
    for entry in keys:
        served = right[entry.model, entry.features]
        top = np.full((len(users), 20), -1, np.int32)
        top[:, 0] = [t if u in served and not entry.seed else -1 for u, t in zip(users, parts.test.items, strict=True)]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=schemas.rankings(20).field("items").type)
        ranked = pa.table({"user_id": users, "items": lists})
        io.write_table(ranked, rankings_path(layout, entry), schemas.rankings(20))
    return tabled(root, SETTINGS)


def tabled(root: Path, settings: Params) -> pa.Table:
    with running("study", "shop", settings, root) as run:
        experiment = Experiment(run, 1)
        experiment.write(slices.tail_tables(experiment))
    return io.read_table(run.layout.study("tail"), schemas.TAIL)


def test_a_group_has_the_mean_of_its_members_over_seeds_and_is_tested_in_pairs(tmp_path: Path) -> None:
    everybody, nobody = set(range(shops.USERS)), set()
    rows = written(
        tmp_path, {("alignrec", "f"): everybody, ("bpr", "none"): nobody, ("alignrec", "random"): everybody}
    ).to_pylist()
    (history,) = {row["label"] for row in rows if row["slice"] == "history"}
    assert history == "6-9"  # eight train interactions each
    ours, bpr, equal = (row for row in rows if row["slice"] == "history")
    assert (ours["mean"], ours["mean_low"], ours["mean_high"], ours["seeds"], ours["n"]) == (0.5, 0.5, 0.5, 2, 60)
    assert ours["difference"] is None
    assert (bpr["difference"], bpr["low"], bpr["high"], bpr["p"]) == (0.5, 0.5, 0.5, 0.0001)
    assert (equal["difference"], equal["p_holm"]) == (0.0, 1.0)
    of_popularity = [row for row in rows if row["slice"] == "popularity" and row["model"] == "bpr"]
    assert [row["label"] for row in of_popularity] == ["tail", "middle", "head"]  # sixty targets are thin in tenths
    assert sum(row["n"] for row in of_popularity) == 60
    tested = [row for row in rows if row["p"] is not None]
    assert [row["p_holm"] for row in tested] == list(holm(np.array([row["p"] for row in tested])))
    assert len(tested) == 2 * 4


def test_targets_are_grouped_by_their_own_items_popularity(tmp_path: Path) -> None:
    parts = shops.two_tastes()
    counts = np.bincount(parts.train.items, minlength=shops.ITEMS)
    popular = {
        int(u) for u, i in zip(parts.test.users, parts.test.items, strict=True) if counts[i] >= np.median(counts)
    }
    rows = written(tmp_path, {("alignrec", "f"): popular}).to_pylist()
    mean = {row["label"]: row["mean"] for row in rows if row["slice"] == "popularity"}
    assert mean["tail"] == 0
    assert mean["head"] == 0.5
    assert all(row["difference"] is None and row["p_holm"] is None for row in rows)  # nothing to compare with
    study = SETTINGS.study.model_copy(update={"tail": False})
    assert len(tabled(tmp_path, SETTINGS.model_copy(update={"study": study}))) == 0


# --- slices of a shop that is small enough to count by hand


# user 0 has three train items, user 1 four; item 3 has no train interaction, item 4 only user 1's
ROWS = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 4, 0), (0, 4, 2), (1, 3, 2), (1, 5, 2)]
TOP = np.array([[4, 3], [0, 3]], np.int32)
KS = (1, 2)


@pytest.fixture
def figures() -> dict[tuple[str, str, str, int], slices.Figure]:
    parts = split.load_split(interactions(ROWS), 2, 6)
    judged = judge_rankings(TOP, np.array([0, 1], np.int32), parts.test, 6, KS)
    return {(f.slice, f.label, f.metric, f.k): f for f in slices.slice_figures(judged, parts, KS)}


def test_users_by_length_of_history(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["history", "3", "recall", 1][2:] == (1, "recall", 1, 1.0)
    assert figures["history", "4-5", "recall", 2].value == 0.5
    assert figures["history", "20+", "ndcg", 1][2:] == (0, "ndcg", 1, None)
    users = sum(f.n for key, f in figures.items() if key[0] == "history" and key[2:] == ("recall", 1))
    assert users == 2


def test_items_by_popularity_and_cold_ones(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["popularity", "cold", "recall", 2][2:] == (2, "recall", 2, 0.5)  # 3 was hit, 5 was not
    assert figures["popularity", "1", "recall", 1][2:] == (1, "recall", 1, 1.0)  # item 4, the least popular known one
    assert figures["popularity", "cold", "exposure", 2].value == 0.5
    exposures = [f.value or 0 for key, f in figures.items() if key[0] == "popularity" and key[2:] == ("exposure", 1)]
    assert sum(exposures) == 1


def test_every_tenth_has_as_many_items() -> None:
    rows = [(user, item, 0) for item in range(20) for user in range(item + 1)] + [(0, 20, 2)]
    parts = slices.popularity_parts(split.load_split(interactions(rows), 20, 21))
    assert parts.tolist() == [*np.repeat(np.arange(1, 11), 2), 0]


def test_coverage_gini_and_novelty(figures: dict[tuple[str, str, str, int], slices.Figure]) -> None:
    assert figures["catalogue", "all", "coverage", 2].value == pytest.approx(3 / 6)  # items 0, 3, 4
    # two places of item 3, one each of 0 and 4, none of the other three: sorted 0 0 0 1 1 2
    assert figures["catalogue", "all", "gini", 2].value == pytest.approx((1 * 1 + 3 * 1 + 5 * 2) / (6 * 4))
    # item 0: both users have it, 0 bits; item 4: one of two, 1 bit; item 3: none, counts as one
    assert figures["catalogue", "all", "novelty", 1].value == pytest.approx((1 + 0) / 2)
    assert figures["catalogue", "all", "novelty", 2].value == pytest.approx((1 + 1 + 0 + 1) / 4)
