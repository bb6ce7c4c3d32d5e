"""BEiT3 as pre-training found it, with the same shape and tokenizer and fresh weights: what pre-training is worth.

Its CLS vectors are whitened where the trained one's are, so that the two differ by what was learned alone.
"""

from __future__ import annotations

import torch

import schemas
from pipeline import io
from pipeline.beit3 import whitening
from pipeline.beit3.network import BEiT3, Config
from pipeline.encode import batching
from pipeline.encode.base import Context, Spec
from pipeline.encode.beit3 import BEiT3Items, BEiT3Params, tokenizer
from pipeline.ops.device import pick
from pipeline.seeds import seed_for

MOST = 4096
"""items, the first, that whitening is fitted to; bounds memory"""


def make(context: Context, params: BEiT3Params) -> BEiT3Items:
    """Draw the weights, and fit their whitening to the dataset's items."""
    layout, shared = context.layout, context.params
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("untrained", layout.dataset, shared.seed))
        network = BEiT3(Config(**io.read_json(layout.encoder_config))).to(pick())
    plain = BEiT3Items(network, tokenizer(layout), params.max_tokens, params.precision)
    if not layout.whitening.is_file():
        return plain
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].slice(0, MOST).to_pylist()
    images = batching.pictures(io.shards(layout.images, "images"), 0, len(texts))
    found = batching.encode(plain, texts, images, shared.batch_size, workers=shared.workers)
    has_any = found.has_image | found.has_text
    fitted = whitening.fit(found.vectors[has_any])
    return BEiT3Items(network, plain.tokenizer, params.max_tokens, params.precision, fitted)


UNTRAINED = Spec(make, BEiT3Params, pretrained=True, variant_of="beit3")
