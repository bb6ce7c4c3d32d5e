"""A release with an encoder: the tiny shop, a tiny random BEiT3 as `pretrain` would leave it, encoded and published."""

from pathlib import Path

import torch
import toy
from safetensors.torch import save_file

from pipeline import io
from pipeline.beit3 import tokenizer
from pipeline.beit3.config import Config
from pipeline.beit3.network import BEiT3
from pipeline.layout import Layout
from pipeline.run import running
from stages import encode, publish
from stages.params import Params

ENCODERS = ["beit3", "beit3-image-masked", "beit3-text-masked"]


def params(publish: dict | None = None, encode: dict | None = None, **sections: object) -> Params:
    return toy.params(
        encode={"encoders": ENCODERS, "controls": [], "batch_size": 4, **(encode or {})},
        publish={"features": ENCODERS, **(publish or {})},
        **sections,
    )


def pretrained(layout: Layout) -> None:
    """Write a network of random weights with a tokenizer of the shop's titles."""
    model = tokenizer.train(toy.TITLES * 9, 60)
    assert model is not None
    io.write_bytes(layout.encoder.tokenizer, model)
    config = Config(
        image=32, patch=16, vocab=tokenizer.Tokenizer(model).vocab, width=64, layers=2, heads=2, ffn=64, positions=40,
        codes=0, mlm=False,
    )  # fmt: skip
    torch.manual_seed(0)
    network = BEiT3(config)
    io.write_json(layout.encoder.config, vars(config))
    save_file(network.state_dict(), layout.encoder.weights)


def outputs(root: Path, settings: Params | None = None) -> Layout:
    return released(toy.outputs(root), settings)


def released(layout: Layout, settings: Params | None = None) -> Layout:
    root, settings = layout.root, settings or params()
    pretrained(layout)
    for stage, main in (("encode", encode.main), ("publish", publish.main)):
        with running(stage, "shop", settings, root) as run:
            main(run)
    return layout
