"""What a release says of the encoder that `pretrain` trained."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline import io
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain

VECTORS = {
    "beit3": "{} itself",
    "beit3-raw": "{} itself, read by no map",
    "beit3-official": "{} itself of the weights that training began from",
}
"""feature set -> what it is; {} is replaced by what the network gives for an item"""


def vector(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    """Return sentences on the vectors of the released sets `names`; empty if none of them is BEiT3's.

    `record` is the run.json of `pretrain`.
    """
    ours = [name for name in VECTORS if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    own = Pretrain.model_validate({k: value for k, value in record["params"].items() if k in Pretrain.model_fields})
    encoded = io.record(io.shards(layout.features(ours[0]), "features")[0]).get("params", {})
    whitened = layout.encoder.whitening.is_file() and encoded.get("whiten", True)
    is_a = VECTORS | ({"beit3": f"{{}}, {own.reading}"} if whitened else {})
    sentences = [
        f"`{name}` is {is_a[name].format(own.summary)}, {io.width(layout.features(name))} numbers." for name in ours
    ]
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
