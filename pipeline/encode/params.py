"""Section `encode` of params.yaml."""

from typing import ClassVar, Literal

from pipeline.config.base import Name, Positive, Section

MODALITIES = ("image", "text")


def variant(name: str, modality: str) -> str:
    return f"{name}-{modality}-masked"


class Encode(Section):
    """Items -> feature sets."""

    speed: ClassVar[frozenset[str]] = frozenset({"engine", "workers"})

    encoders: list[Name] = [
        *("beit3", "beit3-image-masked", "beit3-text-masked"),
        *("minilm-cnn", "descriptors", "tfidf", "linear"),
    ]
    """content encoders to run: names of section `encoders`, or kinds of pipeline/encode/registry.py"""
    controls: list[Literal["random", "shuffled", "constant"]] = ["random", "shuffled", "constant"]
    """feature sets that a useful one must beat; shuffled permutes the first encoder's rows"""
    engine: Literal["local", "ray"] = "local"
    """run networks in this process, or on the nodes of a Ray cluster (extra `ray`)"""
    batch_size: Positive = 64
    """items per forward pass; changes results only by rounding"""
    workers: Positive = 2
    """threads that decode images and tokenise texts; changes only speed"""
    shard_rows: Positive = 16384
    """items per Parquet file; as many as `images.shard_rows`, so that a part reads whole files of images"""
    reuse: bool = False
    """if items change, reuse the vectors of all others instead of rewriting shards: equal to rounding, not bit for bit;
    for encoders that are not fitted to the items"""
    seed: int = 0
