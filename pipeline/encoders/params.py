"""Section `encode` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from alignrec.pipeline.runtime.section import Name, Positive, Section, Seed, Threads

MAX_BATCH = 1 << 20
MOST_CHUNKS = 32  # chunks read per text
# fraction of unknown tokens above which a text counts as unread: its vector is mostly noise
MAX_UNKNOWN = 0.25
MULTILINGUAL = (  # an encoder of texts in 50 languages
    "encoders: {multilingual: {kind: sentence-transformers, "
    "model: sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2}}"
)


class Encode(Section):
    """Section `encode`: feature sets of encoders that are not trained here."""

    speed: ClassVar[frozenset[str]] = frozenset({"engine", "workers"})

    encoders: list[Name] = ["minilm", "cnn", "descriptors", "tfidf"]
    """encoders to run: names in section `encoders`, or kinds in pipeline/encoders/registry.py"""
    engine: Literal["local", "ray"] = "local"
    """run networks in this process, or on the nodes of a Ray cluster (extra `ray`)"""
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)] = 64
    """items per forward pass; changes results only by rounding"""
    workers: Threads = 2
    """threads that decode images and tokenise texts; changes only speed"""
    shard_rows: Positive = 16384
    """items per Parquet file; as many as `images.shard_rows`, so that a part reads whole files of
    images"""
    reuse: bool = False
    """when items change, reuse the vectors of all others: equal up to rounding, not
    byte-identical"""
    seed: Seed = 0
