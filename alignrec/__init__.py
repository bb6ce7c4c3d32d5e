"""Read releases, encode images and texts, probe feature sets and fit recommenders.

Errors that the caller can correct are raised as `UserError`, with a message of one line.
"""

import importlib
from typing import TYPE_CHECKING, Any

from alignrec.pipeline.runtime import process

# modules are imported on first use: torch takes seconds to load, and reading a release does not
# need it
if TYPE_CHECKING:
    from alignrec.encoders import Encoder, encoder
    from alignrec.pipeline.io.errors import UserError
    from alignrec.probes import ProbeResult, probe
    from alignrec.recommenders import Recommendation, Recommender, fit
    from alignrec.releases import Release, load
    from alignrec.vectors import Vectors

process.let_threads_sleep()  # first, as OpenMP reads its settings when torch is loaded
process.use_huge_pages()  # before torch's first tensor

__version__ = "0.1.0"
__all__ = [
    "Encoder",
    "ProbeResult",
    "Recommendation",
    "Recommender",
    "Release",
    "UserError",
    "Vectors",
    "encoder",
    "fit",
    "load",
    "probe",
]

_MODULES = {
    **{"Encoder": "encoders", "encoder": "encoders", "ProbeResult": "probes", "probe": "probes"},
    **dict.fromkeys(("Recommendation", "Recommender", "fit"), "recommenders"),
    **{
        "Release": "releases",
        "load": "releases",
        "Vectors": "vectors",
        "UserError": "pipeline.io.errors",
    },
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(
            f"module 'alignrec' has no attribute '{name}'; it has {', '.join(__all__)}"
        )
    try:
        return getattr(importlib.import_module(f"alignrec.{_MODULES[name]}"), name)
    except ModuleNotFoundError as e:
        from alignrec.pipeline.io.errors import not_installed

        raise (not_installed(e) or e) from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
