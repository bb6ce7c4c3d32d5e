"""The long tail, on figures whose groups are obvious."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import shops
import toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.benchmark import tail
from alignrec.pipeline.benchmark.cell import Entry, list_runs, rankings_path
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.evaluation.statistics import holm
from alignrec.pipeline.harness.run import running

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
        lists = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=schemas.ranking(20))
        ranked = pa.table({"user_id": users, "items": lists})
        io.write_table(ranked, rankings_path(layout, entry), schemas.rankings(20))
    return tabled(root, SETTINGS)


def tabled(root: Path, settings: Params) -> pa.Table:
    with running("study", "shop", settings, root) as run:
        experiment = Experiment(run, 1)
        experiment.write(tail.tail_tables(experiment))
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
