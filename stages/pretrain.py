"""pretrain: BEiT3 by masked image and masked language modelling on the dataset's own images and texts."""

from pipeline.encode.registry import ENCODERS
from pipeline.features.needs import reads_pretrained
from pipeline.features.registry import FEATURES
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run
from pipeline.stage import Needs, Stage
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS


def main(run: Run) -> None:
    """Train the encoder, unless no feature set reads it."""
    from pipeline.pretrain import needs as pretraining
    from pipeline.pretrain.train import train  # loads torch

    if reads_pretrained(run.params):
        train(run, pretraining.find(run.params, run.layout))
        return
    run.resume(run.folder, [])
    run.note(skipped="no feature set of encode.encoders reads what pretrain makes")


def needs(run: Run) -> Needs:
    """Of an encoder that nothing reads, on nothing."""
    from pipeline.pretrain import needs as pretraining

    if reads_pretrained(run.params):
        return pretraining.find(run.params, run.layout)
    return PRETRAIN.depends(run, "nothing reads it", files=[])


PRETRAIN = Stage(
    "pretrain",
    does="BEiT3 by MIM + MLM, and the losses that `pretrain` adds to them",
    writes="`encoder.safetensors`, `config.json`, `tokenizer.spm`, `history.json`",
    reads=(INTERACTIONS, ITEMS, IMAGES),
    params=Pretrain,
    main=main,
    needs=needs,
    loads=(ENCODERS, FEATURES),
)
