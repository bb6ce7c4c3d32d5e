"""The tiny shop with semantic IDs, published."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import releases
import toy
from safetensors.numpy import save_file

from alignrec.commands.params import Params
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.stages import beit3, graph, publish, semantic_ids

CODES = {"features": ["beit3", "minilm-cnn"], "levels": 2, "codes": 2}


def params(publish: dict | None = None, **codes: object) -> Params:
    return toy.params(semantic_ids={**CODES, **codes}, publish=publish or {})


def outputs(root: Path, settings: Params | None = None) -> Layout:
    return released(toy.outputs(root), settings)


def released(layout: Layout, settings: Params | None = None) -> Layout:
    settings = settings or params()
    for stage, main in (("semantic_ids", semantic_ids.main), ("publish", publish.main)):
        with running(stage, "shop", settings, layout.root) as run:
            main(run)
    return layout


def with_encoders(root: Path, read: bool = False) -> Layout:
    """Write `outputs` with features of released encoders, so that new items can be coded; `read`: CLS by a map."""
    shutil.copytree(_with_encoders(read), root, dirs_exist_ok=True)
    return Layout(root, "shop")


@cache
def _with_encoders(read: bool) -> Path:
    """Cached, as it takes seconds."""
    root = Path(mkdtemp(prefix="with-encoders-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    settings = releases.params(semantic_ids=CODES | {"features": ["beit3", "beit3-image-masked"]})
    layout = toy.outputs(root)
    releases.pretrained(layout)
    if read:
        arrays = {"mean": np.zeros(64, np.float32), "map": np.eye(64, 8, dtype=np.float32)}
        save_file(arrays, layout.encoder.whitening)
    for stage, main in (("beit3", beit3.main), ("graph", graph.main)):
        with running(stage, "shop", settings, root) as run:
            main(run)
    released(layout, settings)
    return root
