"""What commands leave out when they start; imported before all other packages."""

import sys
from importlib.metadata import entry_points

PLUG_INS = "alignrec."  # groups of entry points


class _WithoutPandas:
    """Finder of modules, in whose presence pandas is not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def leave_out_pandas() -> None:
    """Let PyArrow take pandas for absent, which it imports at its first table: 0.3 s of CPU.

    No command gives it objects of pandas, but a plug-in may. Other packages still import pandas.
    """
    has_plug_ins = any(group.startswith(PLUG_INS) for group in entry_points().groups)
    if has_plug_ins or "pandas" in sys.modules:
        return

    import pyarrow as pa

    sys.meta_path.insert(0, _WithoutPandas)
    try:
        pa.array([0])  # looks for pandas, once
    finally:
        sys.meta_path.remove(_WithoutPandas)
