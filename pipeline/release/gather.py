"""Reads the outputs of one dataset's stages for a release; a missing stage is left out."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.config.parameters import Shown
from pipeline.encode.params import Encode
from pipeline.errors import UserError
from pipeline.evaluation import evidence
from pipeline.facts.content import width
from pipeline.facts.outputs import Outputs
from pipeline.features import released as sets
from pipeline.features.sets import FeatureSets
from pipeline.graph import released as graph
from pipeline.items.texts import Texts
from pipeline.layout import Layout, Piece
from pipeline.pretrain.params import Pretrain
from pipeline.release import build, chains, language
from pipeline.release.manifest import Input
from pipeline.release.params import Publish
from pipeline.release.parts import Parts
from pipeline.run import Run
from pipeline.semantic_ids import released as codes
from pipeline.train import released as trained

VECTORS = {
    "beit3": "{} itself",
    "beit3-raw": "{} itself, read by no map",
    "beit3-official": "{} itself of the weights that training began from",
}
"""feature set of the encoder that `pretrain` trains -> what it is; {} stands for what the network says of an item"""
HASHES = ["item_id", "status", "url", "sha256", "phash"]


def parts(run: Run, stages: Sequence[str]) -> Parts:
    """Collect the content of a dataset's release; UserError if items or all feature sets are absent."""
    layout, params = run.layout, run.params[Publish]
    outputs, names = Outputs(layout, run.source.kind, stages=stages), feature_sets(run)
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    upstream = [layout.interactions, layout.items, layout.results]
    with_interactions = run.source.licence.interactions if params.interactions is None else params.interactions
    users = released_users(params, with_interactions)
    texts = params.texts or run.source.licence.texts
    pieces = [
        *sets.vectors(layout, names),
        *graph.edges(layout, names),
        *codes.codes(layout, names, params.semantic_ids),
        *sets.tried(layout, names),
        *trained.embeddings(layout, users != "none"),
        *trained.index(layout, interactions, params.exact_up_to),
        *_evidence(outputs),
    ]
    return Parts(
        outputs=outputs,
        publish=params,
        items=_items(layout, texts),
        texts=texts,
        language=language.detect(Texts(layout.items)) if params.language is None else params.language,
        interactions=interactions,
        users=run.read(layout.users, schemas.USERS),
        features={name: io.shards(layout.features(name), "features") for name in names},
        pieces=pieces,
        encoders=chains.gather(FeatureSets.of(layout, run.params[Encode], run.params.encoders), names),
        with_interactions=with_interactions,
        named_users=users == "names",
        half=params.half,
        vector=vector(outputs, names),
        inputs=[Input(**{k: row[k] for k in ("name", "bytes", "sha256")}) for row in io.read_json(layout.sources)],
        weights=[Input(name=p.name, bytes=p.stat().st_size, sha256=io.sha256(p)) for p in weights(layout)],
        upstream=[p for p in upstream if p.exists()],
    )


def released_users(params: Publish, with_interactions: bool) -> str:
    """Return what the release says of users: none, numbers or names; UserError for interactions without users."""
    users = params.users or ("names" if with_interactions else "none")
    if with_interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers, or publish.interactions"
        )
    return users


def feature_sets(run: Run) -> list[str]:
    """Return those of `publish.features` that are encoded; UserError if none is."""
    wanted = run.params[Publish].features
    encoded = run.layout.feature_sets()
    names = [name for name in wanted if name in encoded]
    if not names:
        raise UserError(
            f"publish.features ({', '.join(wanted)}): none has been encoded for {run.dataset}; "
            f"there are {', '.join(encoded) or 'no feature sets: run `alignrec encode ' + run.dataset + '` first'}"
        )
    return names


def vector(outputs: Outputs, names: Sequence[str]) -> str:
    """Return what the vectors of the encoder that `pretrain` trained are, in sentences.

    Args:
        outputs: of the dataset.
        names: feature sets that are released; without BEiT3's among them the text is empty.
    """
    record, layout = outputs.records.get("pretrain"), outputs.layout
    ours = [name for name in VECTORS if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    own = Pretrain.model_validate({k: value for k, value in record["params"].items() if k in Pretrain.model_fields})
    shards = {name: io.shards(layout.features(name), "features") for name in ours}
    whitened = layout.encoder.whitening.is_file() and io.record(shards[ours[0]][0]).get("params", {}).get(
        "whiten", True
    )
    is_a = VECTORS | ({"beit3": f"{{}}, {own.reading}"} if whitened else {})
    sentences = [f"`{name}` is {is_a[name].format(own.summary)}, {width(shards[name])} numbers." for name in ours]
    shape = io.read_json(layout.encoder.config)
    start = f"from `{PurePosixPath(urlsplit(own.init).path).name}`" if own.init else "from random weights"
    images = f"for images of {shape.get('image')} pixels a side"
    if own.size == "mini":
        start, images = "from all-MiniLM-L6-v2", "for vectors of images by EfficientNet-Lite0 and descriptors"
    losses = f"pre-trained by {own.objective}" if own.steps else "not trained: it is as it was initialised"
    sentences.append(f"The network is a BEiT3 of {shape['layers']} layers, {images}, {start}, {losses}.")
    if own.distill and own.steps:
        sentences.append(
            "AlignRec's article trains by MIM + MLM only and reads CLS itself: none of these is its feature."
        )
    return " ".join(sentences)


def weights(layout: Layout) -> list[Path]:
    """Return the existing files of learned weights."""
    learned = [layout.encoder.weights, layout.encoder.tokenizer, layout.encoder.whitening, layout.model]
    return [path for path in learned if path.exists()]


def _evidence(outputs: Outputs) -> Iterator[Piece]:
    """Yield what the stages found, as far as they have run."""
    if outputs.results is not None:
        yield Piece("results.json", evidence.as_json(outputs.results, outputs.protocols))
    if outputs.probes is not None:
        yield Piece("probes.json", outputs.probes)
    if outputs.study:
        yield Piece("study.json", {part: table.to_pylist() for part, table in outputs.study.items()})


def _items(layout: Layout, texts: Shown) -> Iterator[pa.Table]:
    """Yield RELEASED_ITEMS with the texts that are shown, those of a shard of images at a time."""
    if not any(layout.images.glob("images-*.parquet")):
        yield from (build.released_items(items, None, texts) for items in io.read_tables(layout.items, schemas.ITEMS))
        return
    first = 0
    for path in io.shards(layout.images, "images"):
        images = _hashed(path)
        items = io.read_rows(layout.items, schemas.ITEMS, schemas.ITEMS.names, first, len(images))
        first += len(images)
        yield build.released_items(items, images, texts)


def _hashed(path: Path) -> pa.Table:
    """Read a shard of images a row group at a time; return statuses, and hashes in place of the bytes."""
    parts = []
    for table in io.read_tables(path, schemas.IMAGES):
        hashes = [build.image_sha256(image.as_py()) for image in table["image"]]
        kept = table.select(HASHES).replace_schema_metadata()
        parts.append(kept.append_column("input_image_sha256", pa.array(hashes, pa.string())))
    return pa.concat_tables(parts)
