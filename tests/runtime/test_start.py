"""Commands start without pandas, which PyArrow would import at the first table."""

import subprocess
import sys

import pytest

FIRST_TABLE = """
import sys
from alignrec.pipeline.runtime import start
{before}
start.leave_out_pandas()
import pyarrow as pa
pa.table({{"x": [1, 2]}})
print("pandas" in sys.modules)
import pandas as pd
print(pd.Series([1, 2]).sum(), end=" ")
print(pa.array(pd.Series([1, 2]).to_numpy()).to_pylist())
"""
PLUG_IN = """
start.entry_points = lambda: type("Points", (), {"groups": {"alignrec.sources"}})()
"""


@pytest.mark.parametrize(("before", "loaded"), [("", False), ("import pandas", True), (PLUG_IN, True)])
def test_pandas_is_not_loaded_and_can_be_imported(before: str, loaded: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_TABLE.format(before=before)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{loaded}\n3 [1, 2]\n"


def test_a_command_does_not_load_pandas() -> None:
    script = "import sys; from alignrec.__main__ import main; sys.argv = ['alignrec', 'diff', '--help']\n"
    script += (
        "try: main()\nexcept SystemExit: pass\nimport pyarrow as pa; pa.array([1])\nassert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
