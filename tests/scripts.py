"""Import scripts of .ci as modules."""

import importlib.util
import sys
from types import ModuleType

from alignrec.pipeline.harness.code import ROOT


def script(name: str) -> ModuleType:
    """Load .ci/<name>.py, and the scripts that it imports."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    return module
