"""BEiT3 as initialised, with the trained one's shape and tokenizer: the control for pre-training.

Its CLS vectors are whitened where the trained one's are read by a map: no teacher has a map of them.
"""

import torch

import schemas
from pipeline import io
from pipeline.beit3.network import BEiT3, Config
from pipeline.encode import batching
from pipeline.encode.base import Context, Spec
from pipeline.encode.beit3 import BEiT3Items, BEiT3Params, runnable, settled, tokenizer, whitens
from pipeline.ops import whitening
from pipeline.ops.device import pick
from pipeline.seeds import seed_for

MOST = 4096
"""first items, to which whitening is fitted; bounds memory"""


def make(context: Context, params: BEiT3Params) -> BEiT3Items:
    """Draw the weights, and fit their whitening to the dataset's items."""
    layout, shared, files = context.layout, context.params, context.files
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("untrained", layout.dataset, shared.seed))
        network = BEiT3(Config(**io.read_json(files.config))).to(pick())
    precision = runnable(context, params.precision)
    unwhitened = BEiT3Items(network, tokenizer(files), params.max_tokens, precision)
    if not whitens(context, params):
        return unwhitened
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].slice(0, MOST).to_pylist()
    images = batching.read_images(io.shards(layout.images, "images"), 0, len(texts))
    encoded = batching.encode(unwhitened, texts, images, shared.batch_size, workers=shared.workers)
    has_any = encoded.has_image | encoded.has_text
    fitted = whitening.fit(encoded.vectors[has_any])
    return BEiT3Items(network, unwhitened.tokenizer, params.max_tokens, precision, fitted)


UNTRAINED = Spec(make, BEiT3Params, pretrained=True, variant_of="beit3", settled=settled, portable=False)
