"""Section `encode` of params.yaml."""

from typing import ClassVar, Literal

from pipeline.config.base import Name, Positive, Section

MODALITIES = ("image", "text")  # what encoders read of an item


def variant(name: str, modality: str) -> str:
    return f"{name}-{modality}-masked"


class Encode(Section):
    """Items -> feature sets."""

    speed: ClassVar[frozenset[str]] = frozenset({"engine", "workers"})

    encoders: list[Name] = [
        *("beit3", "beit3-image-masked", "beit3-text-masked"),
        *("minilm-cnn", "descriptors", "tfidf", "linear"),
    ]
    """which content encoders to run: names of section `encoders`, or kinds of pipeline/encode/registry.py"""
    controls: list[Literal["random", "shuffled", "constant"]] = ["random", "shuffled", "constant"]
    """feature sets that a useful one must beat; shuffled permutes the first encoder's rows"""
    engine: Literal["local", "ray"] = "local"
    """where networks run: in this process, or on the nodes of a Ray cluster (extra `ray`)"""
    batch_size: Positive = 64
    """items a forward pass; changes speed, and results by rounding alone"""
    workers: Positive = 2
    """threads that decode images and tokenise texts beside the network; changes speed alone"""
    shard_rows: Positive = 16384
    """items a Parquet file; as many as `images.shard_rows`, so that a part reads whole files of images"""
    reuse: bool = False
    """where items change, take over the vectors of all others instead of making their files anew: equal to rounding,
    not bit for bit; of encoders that are not fitted to the items"""
    seed: int = 0
