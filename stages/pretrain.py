"""pretrain: BEiT3 by masked image and masked language modelling on the dataset's own images and texts."""

from pipeline.pretrain.train import train
from pipeline.run import Run
from stages import needs


def main(run: Run) -> None:
    """Train the encoder, unless no feature set reads it."""
    if needs.pretrains(run):
        train(run, needs.of(run))
        return
    run.resume(run.folder, [])
    run.note(skipped="no feature set of encode.encoders reads what pretrain makes")
