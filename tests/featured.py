"""Feature sets of a small shop, as the stage `encode` makes them."""

from typing import Any

import numpy as np
import toy

from pipeline import io
from pipeline.layout import Layout
from pipeline.run import running
from stages.encode import main
from stages.params import Params


def params(*names: str, **encoders: dict[str, Any]) -> Params:
    return toy.params(encode={"encoders": list(names), "controls": [], "shard_rows": 4}, encoders=encoders)


def stage(layout: Layout, given: Params) -> dict[str, bytes]:
    """Run the stage; return the files of each feature set."""
    with running("encode", layout.dataset, given, layout.root) as run:
        main(run)
    return files(layout)


def files(layout: Layout) -> dict[str, bytes]:
    return {
        name: b"".join(path.read_bytes() for path in io.shards(layout.features(name), "features"))
        for name in layout.feature_sets()
    }


def vectors(layout: Layout, name: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(name))["vector"])
