"""Kinds of combined feature sets.

To add one, write its settings and maker in a file here, and list it in KINDS.
"""

from alignrec.pipeline.features.kinds.base import SetKind
from alignrec.pipeline.features.kinds.concat import CONCAT
from alignrec.pipeline.features.kinds.controls import CONTROL
from alignrec.pipeline.features.kinds.imported import IMPORTED
from alignrec.pipeline.features.kinds.linear import LINEAR
from alignrec.pipeline.features.kinds.masked import MASKED
from alignrec.pipeline.features.kinds.whitened import WHITENED

__all__ = [
    "CONCAT",
    "CONTROL",
    "CONTROLS",
    "IMPORTED",
    "KINDS",
    "LINEAR",
    "MASKED",
    "NAMED_KINDS",
    "SetKind",
]

# feature sets that a useful one must beat
CONTROLS = ("random", "shuffled", "constant")
# kinds that `combine.sets` may name
KINDS: dict[str, SetKind] = {kind.name: kind for kind in (CONCAT, WHITENED, LINEAR, MASKED)}
NAMED_KINDS = KINDS | dict.fromkeys(CONTROLS, CONTROL)  # also the control of each name
