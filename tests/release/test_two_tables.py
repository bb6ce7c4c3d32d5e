"""docs/compare.md: a file of vectors and one of interactions are a dataset for compare, probe and leaderboard."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec, blocks, run_stages

from alignrec.pipeline.runtime.code import ROOT
from alignrec.stages.order import STAGES

PAGE = (ROOT / "docs/compare.md").read_text().split("## Two tables are a dataset")[1].split("\n## ")[0]
ITEMS, USERS, EACH = 80, 120, 12
FIRST_TIME = 1_600_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the two tables, whose users buy what is near to their taste, and params.yaml."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, 8))
    identifiers = [f"sku{number}" for number in range(ITEMS)]
    table = pa.table({"id": identifiers, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "vectors.parquet")

    rows = []
    for user in range(USERS):
        likes = np.exp(1.5 * vectors @ rng.normal(size=8))
        bought = rng.choice(ITEMS, EACH, replace=False, p=likes / likes.sum())
        rows += [
            {"user": f"u{user}", "id": identifiers[item], "time": FIRST_TIME + 1000 * place + user}
            for place, item in enumerate(bought)
        ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "interactions.parquet")
    (tmp_path / "params.yaml").write_text(blocks(PAGE, "yaml")[0])
    return tmp_path


def run_line(line: str, folder: Path) -> str:
    """Run a line of the page; of `dvc repro`, the stages that have not run."""
    output = ""
    for command in line.partition(" #")[0].split("&&"):
        program, *arguments = shlex.split(command)
        if program == "dvc":
            last = arguments[1] if len(arguments) > 1 else [*STAGES][-1]
            stages = [*STAGES][: [*STAGES].index(last) + 1]
            due = [stage for stage in stages if not (folder / "outputs" / stage / "mine").exists()]
            output += run_stages("mine", *due, cwd=folder)
            continue
        result = alignrec(*arguments, cwd=folder)
        assert result.exit_code == 0, result.output
        output += result.output
    return output


@pytest.mark.usefixtures("one_process")
def test_the_lines_of_the_page_run(folder: Path) -> None:
    new, tables, compare, probe, leaderboard = blocks(PAGE, "bash")[0].splitlines()
    assert "wrote dvc.yaml" in run_line(new, folder)
    run_line(tables, folder)
    assert "rows matched by id" in run_line(compare, folder)
    compared = json.loads((folder / "outputs/compare/mine/compare.json").read_text())
    neighbours = compared["probes"]["content_knn"]
    assert neighbours["vectors"]["recall@20"] > neighbours["random"]["recall@20"]

    run_line(probe, folder)
    figures = json.loads((folder / "outputs/probe/mine/probes.json").read_text())["content_knn"]
    assert figures["theirs"] == neighbours["vectors"]
    assert "| vbpr | theirs | " in run_line(leaderboard, folder)
