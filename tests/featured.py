"""Feature sets of a small shop, from the stages `encode`, `beit3` and `combine`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import toy

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.encode.params import BEiT3, Encode
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.stages import beit3, combine, encode


def params(*names: str, sets: Mapping[str, Any] | None = None, **encoders: dict[str, Any]) -> Params:
    """Return parameters with encoders `names`, and combinations `sets`."""
    own = {"encode": {"encoders": list(names), "shard_rows": 4}, "combine": {"sets": sets or {}, "controls": []}}
    return toy.params(**own, beit3={"sets": []}, encoders=encoders)


def stage(layout: Layout, given: Params) -> dict[str, bytes]:
    """Run the stages; return the files of each feature set."""
    for name in given[Encode].encoders:
        with running("encode", layout.dataset, given, layout.root, name) as run:
            encode.main(run)
    if given[BEiT3].sets:
        with running("beit3", layout.dataset, given, layout.root) as run:
            beit3.main(run)
    with running("combine", layout.dataset, given, layout.root) as run:
        combine.main(run)
    return files(layout)


def files(layout: Layout) -> dict[str, bytes]:
    return {
        name: b"".join(path.read_bytes() for path in io.shards(layout.features(name), "features"))
        for name in layout.feature_sets()
    }


def vectors(layout: Layout, name: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(name))["vector"])
