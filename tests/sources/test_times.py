"""Times in any unit become seconds, and what is no time of our years is refused unless the source says what it is."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.download import list_files

SECOND = 844_041_600  # 30 September 1996, in the first year of Amazon's reviews
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def stored(root: Path, times: list[Any], ending: str = "csv", **source: object) -> tuple[list[Any], str]:
    """Run the stage on a row per time; return its times in that order, and the clock."""
    layout = Layout(root, "shop")
    layout.raw.mkdir(parents=True)
    path = layout.raw / f"r.{ending}"
    if ending == "parquet":
        names = [f"i{n:03}" for n in range(len(times))]
        pq.write_table(pa.table({"user": ["u"] * len(times), "item": names, "timestamp": times}), path)
    else:
        path.write_text("user,item,timestamp\n" + "".join(f"u,i{n:03},{t}\n" for n, t in enumerate(times)))
    io.write_json(layout.sources, list_files(layout.raw, {"interactions": path.name}, {}))
    made = {"kind": "tabular", "interactions": path.name, **source}
    cores, small = {"user_core": 1, "item_core": 1}, {"ks": [1]}
    params = toy.params(sources={"shop": made}, interactions=cores, benchmark=small, probe=small)
    toy.run("interactions", params, root)

    table = io.read_table(layout.interactions, schemas.INTERACTIONS).sort_by("item_id")
    return table["timestamp"].to_pylist(), schemas.read_clock(pq.read_table(layout.interactions))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("unit", UNITS)
def test_units_are_told_by_size(tmp_path: Path, unit: str, ending: str) -> None:
    seconds = [631_152_000, SECOND, 1_700_000_000, 4_102_444_799]
    assert stored(tmp_path, [s * UNITS[unit] for s in seconds], ending) == (seconds, "unix")


def test_columns_of_times_have_their_own_unit(tmp_path: Path) -> None:
    for unit, per_second in UNITS.items():
        times = pa.array([SECOND * per_second], pa.timestamp(unit))
        assert stored(tmp_path / unit, times, "parquet") == ([SECOND], "unix")


IMPLAUSIBLE = [0, 7, -1, 631_151_999, 4_102_444_800, 90_000_000_000, SECOND * 10**9 * 9, "1815-06-18", "2101-01-01"]


@pytest.mark.parametrize("time", IMPLAUSIBLE)
def test_other_years_are_refused_with_the_key_to_set(tmp_path: Path, time: object) -> None:
    fault = r"1 times are not of the years 1990 to 2100, the first .* in row 2; set `timestamps` of the source: order"
    with pytest.raises(UserError, match=fault):
        stored(tmp_path, [SECOND, time])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_few_times_of_other_years_are_counted_rejects(tmp_path: Path, ending: str) -> None:
    times = [SECOND, 0, *[SECOND + n for n in range(97)], -1]
    found, _ = stored(tmp_path, times, ending, max_reject_share=0.02)
    assert (len(found), min(found)) == (98, SECOND)
    layout = Layout(tmp_path, "shop")
    assert io.read_json(layout.run_record("interactions"))["drops"]["time_of_another_year"] == 2
    rejects = io.read_table(layout.interaction_rejects, schemas.REJECTS)
    assert rejects["line"].to_pylist() == [2, 100]
    assert rejects["raw"].to_pylist() == [b"u,i001,0", b"u,i099,-1"]
    assert set(rejects["reason"].to_pylist()) == {"a time not of the years 1990 to 2100"}
    with pytest.raises(UserError, match="2 times are not of the years 1990 to 2100, the first 0 in row 2"):
        stored(tmp_path / "strict", times, ending, max_reject_share=0.01)


def test_the_source_says_what_its_timestamps_are(tmp_path: Path) -> None:
    numbers = [3, 90_000_000_000_000, 5]
    assert stored(tmp_path / "a", numbers, timestamps="order") == (numbers, "order")
    assert stored(tmp_path / "b", [3, 20240102], timestamps="order") == ([3, 20240102], "order")
    assert stored(tmp_path / "c", [0, 86400], timestamps="unix") == ([0, 86400], "unix")
    assert stored(tmp_path / "d", ["x", 5], timestamps="none") == ([None, None], "none")
    split = {"interactions": "r.csv", "columns": {"split": "timestamp"}}  # an own split is checked too
    with pytest.raises(UserError, match="years 1990 to 2100"):
        stored(tmp_path / "e", [0, 1], **split)


@pytest.mark.parametrize(("start", "key"), [(0, "order"), (SECOND, None)])
def test_new_recognises_positions(tmp_path: Path, start: int, key: str | None) -> None:
    rows = [f"u{u},i{i},{start + i}" for u in range(12) for i in range(12)]
    (tmp_path / "r.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    options = ("--interactions", "r.csv", "--interactions-only", "--to", "p.yaml")
    result = alignrec("new", "mine", *options, cwd=tmp_path)
    assert result.exit_code == 0, result.output
    source = yaml.safe_load((tmp_path / "p.yaml").read_text())["sources"]["mine"]
    assert source.get("timestamps") == key
    assert ("positions, not times" in result.output) == bool(key)
