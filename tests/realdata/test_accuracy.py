"""A few epochs on real data reach expected figures; `make realdata` trains to the end."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from realdata import cases

from alignrec.commands.params import load
from alignrec.pipeline.dataset import split
from alignrec.pipeline.evaluation.protocol import selecting_protocol
from alignrec.pipeline.models.lightgcn import LightGCN
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.release import leaderboard

DATA = Path("../shared/data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def published_split(path: Path) -> split.Split:
    """Read userID, itemID and x_label of an MMRec file; pyarrow decompresses .gz by name."""
    table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
    ids = table.select(["userID", "itemID", "x_label"]).rename_columns(["user_id", "item_id", "split"])
    size = [int(ids[name].to_numpy().max()) + 1 for name in ("user_id", "item_id")]
    return split.load_split(ids.append_column("timestamp", pa.nulls(len(ids), pa.int64())), *size)


@needs_data
def test_lightgcn_on_baby_after_three_epochs() -> None:
    parts = published_split(DATA / "baby_2014/baby.inter.gz")
    assert [len(pairs) for pairs in (parts.train, parts.valid, parts.test)] == [118_551, 20_559, 21_682]
    fingerprint = selecting_protocol("mmrec", "mmrec", "as imported", parts).fingerprint
    assert leaderboard.read_published()["fingerprints"][fingerprint] == "baby"
    found = fit(LightGCN, parts, None, None, LightGCN.Params(epochs=3, lr=5e-3), 0)
    assert found.valid["recall@20"] > 0.055


# --- parameter files


@pytest.mark.parametrize("name", cases.NAMES)
def test_parameter_files_are_valid(name: str, tmp_path: Path) -> None:
    case = cases.cases(tmp_path)[name]
    assert load(case.params).datasets == [case.layout.dataset]
