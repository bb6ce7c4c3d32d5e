"""Stage encode: feature sets of pre-trained encoders."""

from shutil import rmtree

from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import ENCODERS, NothingToFit, find_network
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS


def main(run: Run) -> None:
    from alignrec.pipeline.features.batching import Items  # loads torch
    from alignrec.pipeline.features.encode import write_set

    own = run.params[Encode]
    # delete the outputs of encoders that left the matrix, which DVC would keep
    for path in run.out.parent.glob("*/features-00000.parquet"):
        if path.parent.name not in own.encoders:
            rmtree(path.parent)
    if run.item not in own.encoders:
        run.note(skipped=f"{run.dataset} has nothing that is encoded by default")
        return
    items, network = Items.of(run.layout), find_network(run.params.encoders, run.item, run.folder)
    known = run.layout.rows if own.reuse else None
    with run.progress(total=len(items.ids), unit="item") as bar:
        try:
            write_set(run, network, run.folder, items, bar.update, known)
        except NothingToFit as e:  # the other encoders still run
            run.warn(f"{run.item}: {e}")
            return
    run.rows_in = run.rows_out = len(items.ids)


ENCODE = Stage(
    "encode", does="items -> the feature set of one encoder",
    writes="`features-*.parquet`, `set.json`, `encoder/`", reads=(INTERACTIONS, ITEMS, IMAGES), per="encoder",
    resumes=True, sections=("encoders",), params=Encode, main=main, loads=(ENCODERS,),
)  # fmt: skip
