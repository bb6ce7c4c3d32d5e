"""A release of the tiny shop, whose encoder is a tiny random BEiT3 in the format of `pretrain`; and one with codes."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from shop import toy

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import tokenizer
from alignrec.pipeline.beit3.config import BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.release import manifest
from alignrec.pipeline.runtime.layout import Layout

ENCODERS = ["beit3", "beit3-image-masked", "beit3-text-masked"]


def params(publish: dict | None = None, encode: dict | None = None, **sections: object) -> Params:
    return toy.params(
        encode={"batch_size": 4, **(encode or {})},
        beit3={"sets": ENCODERS},
        combine={"sets": {}, "controls": []},
        publish={"features": ENCODERS, **(publish or {})},
        **sections,
    )


def pretrained(layout: Layout) -> None:
    """Write a network with random weights, and a tokenizer of the shop's titles."""
    model = tokenizer.train_model(toy.TITLES * 9, 60)
    assert model is not None
    io.write_bytes(layout.encoder.tokenizer, model)
    config = BEiT3Config(
        image=32, patch=16, vocab=tokenizer.Tokenizer(model).vocab, width=64, layers=2, heads=2, ffn=64, positions=40,
        codes=0, mlm=False,
    )  # fmt: skip
    torch.manual_seed(0)
    network = BEiT3(config)
    io.write_json(layout.encoder.config, vars(config))
    save_file(network.state_dict(), layout.encoder.weights)


def outputs(root: Path, settings: Params | None = None) -> Layout:
    """Write the outputs of every stage, encoded by the tiny network, and publish them."""
    if settings is not None:
        return released(toy.outputs(root), settings)
    shutil.copytree(toy.made(_outputs), root, dirs_exist_ok=True)
    return Layout(root, "shop")


def _outputs(root: Path) -> None:
    released(toy.outputs(root))


def released(layout: Layout, settings: Params | None = None) -> Layout:
    """Encode the outputs and publish them."""
    pretrained(layout)
    toy.run("beit3", settings or params(), layout.root)
    return published(layout, settings or params())


def published(layout: Layout, settings: Params = toy.PARAMS) -> Layout:
    """Publish the outputs."""
    toy.run("publish", settings, layout.root)
    return layout


def edit(release: Path, change: Callable[[dict], object]) -> None:
    """Edit a manifest and update its digest."""
    path = release / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    with suppress(ValueError):  # what is no JSON has no digest
        content = manifest.with_digest(content)
    path.write_text(json.dumps(content))


def drop(release: Path, *prefixes: str) -> None:
    """Delete files with a prefix, also from the manifest."""
    for path in [p for p in release.rglob("*") if p.relative_to(release).as_posix().startswith(prefixes)]:
        path.unlink() if path.is_file() else None
    edit(release, lambda m: m.update(files=[f for f in m["files"] if not f["path"].startswith(prefixes)]))


def relist(release: Path, name: str) -> None:
    """Update the manifest to a changed file, as an attacker would."""

    def change(content: dict) -> None:
        entry = next(f for f in content["files"] if f["path"] == name)
        entry |= manifest.describe_file(release, release / name, entry["table"], entry["used_by"]).model_dump()

    edit(release, change)


def rewrite(path: Path, column: str, change: Callable[[list], list]) -> None:
    """Change a column of a Parquet file."""
    table = pq.read_table(path, partitioning=None)
    at = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), table.schema.field(column).type)
    pq.write_table(table.set_column(at, table.schema.field(column), values), path)


def signing_key(path: Path, comment: str = "") -> Path:
    """Write a private key, and its public key as .pub."""
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path]
    subprocess.run(make, check=True)
    return path


# --- with semantic IDs


CODES = {"features": ["beit3", "minilm-cnn"], "levels": 2, "codes": 2}


def coded_params(publish: dict | None = None, **codes: object) -> Params:
    return toy.params(semantic_ids={**CODES, **codes}, publish=publish or {})


def coded(root: Path, settings: Params | None = None) -> Layout:
    return released_with_codes(toy.outputs(root), settings)


def released_with_codes(layout: Layout, settings: Params | None = None) -> Layout:
    settings = settings or coded_params()
    for stage in ("semantic_ids", "publish"):
        toy.run(stage, settings, layout.root)
    return layout


def with_encoders(root: Path, read: bool = False) -> Layout:
    """Write `outputs` with features of released encoders, so that new items can be coded; `read`: CLS by a map."""
    shutil.copytree(toy.made(_with_encoders, read), root, dirs_exist_ok=True)
    return Layout(root, "shop")


def _with_encoders(root: Path, read: bool) -> None:
    settings = params(semantic_ids=CODES | {"features": ["beit3", "beit3-image-masked"]})
    layout = toy.outputs(root)
    pretrained(layout)
    if read:
        arrays = {"mean": np.zeros(64, np.float32), "map": np.eye(64, 8, dtype=np.float32)}
        save_arrays(arrays, layout.encoder.whitening)
    for stage in ("beit3", "graph"):
        toy.run(stage, settings, root)
    released_with_codes(layout, settings)


def agree(release: Path, name: str, **more: object) -> None:
    """Update the manifest to a changed file."""
    data, own = (release / name).read_bytes(), Path(name).name
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(release, lambda m: next(f for f in m["files"] if f["path"] == name).update(facts | more))
    edit(release, lambda m: [w.update(facts) for w in m["weights"] if w["name"] == own])


def put(release: Path, name: str, data: bytes) -> None:
    (release / name).write_bytes(data)
    agree(release, name)
