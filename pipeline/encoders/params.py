"""Sections `encode` and `beit3` of params.yaml."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from alignrec.pipeline.runtime.config import Name, Positive, Section

MOST_CHUNKS = 32  # chunks read per text
IMAGE_TOKENS = ("cnn", "descriptors")  # encoders whose vectors are the image tokens of BEiT3 mini
MULTILINGUAL = (  # an encoder of texts in 50 languages
    "encoders: {multilingual: {kind: sentence-transformers, "
    "model: sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2}}"
)
BEiT3Set = Literal[
    "beit3",
    "beit3-image-masked",
    "beit3-text-masked",
    "beit3-raw",
    "beit3-raw-image-masked",
    "beit3-raw-text-masked",
    "beit3-untrained",
    "beit3-official",
]

TRAINED: tuple[str, ...] = get_args(BEiT3Set)
# sets of CLS itself, read by no map
RAW = tuple(name for name in TRAINED if name.startswith("beit3-raw"))


class Encode(Section):
    """Section `encode`: feature sets of encoders that are not trained here."""

    speed: ClassVar[frozenset[str]] = frozenset({"engine", "workers"})

    encoders: list[Name] = ["minilm", "cnn", "descriptors", "tfidf"]
    """encoders to run: names in section `encoders`, or kinds in pipeline/encoders/registry.py"""
    engine: Literal["local", "ray"] = "local"
    """run networks in this process, or on the nodes of a Ray cluster (extra `ray`)"""
    batch_size: Positive = 64
    """items per forward pass; changes results only by rounding"""
    workers: Positive = 2
    """threads that decode images and tokenise texts; changes only speed"""
    shard_rows: Positive = 16384
    """items per Parquet file; as many as `images.shard_rows`, so that a part reads whole files of images"""
    reuse: bool = False
    """when items change, reuse the vectors of all others: equal up to rounding, not byte-identical"""
    seed: int = 0


class BEiT3Params(Section):
    """Settings for encoding with the network that `pretrain` trains."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of matrix products; features are float32. Use bfloat16 for base and large on GPUs, or CPUs with AMX or
    AVX512-BF16; size mini encodes in float32"""
    max_tokens: Annotated[int, Field(ge=3)] | None = None
    """tokens per part of a text, at most the network's number of positions; by default `pretrain.max_tokens`"""
    chunks: Positive = MOST_CHUNKS
    """maximum parts per text, each encoded with the image; their CLS are averaged, weighted by tokens"""
    whiten: bool = True
    """apply the map that `pretrain` fitted to CLS: to the teachers' vectors, or whitening; false: raw CLS"""


class BEiT3(BEiT3Params):
    """Section `beit3`: feature sets of the network that `pretrain` trains."""

    sets: list[BEiT3Set] = ["beit3", "beit3-image-masked", "beit3-text-masked"]
    """CLS after the map that `pretrain` fitted; raw CLS; either with one modality masked; untrained weights; the
    weights of `pretrain.init` before training"""
