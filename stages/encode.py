"""Stage encode: feature sets of pre-trained encoders."""

from alignrec.pipeline.encode.params import Encode
from alignrec.pipeline.encode.registry import ENCODERS, NothingToFit
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import Stage
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS


def main(run: Run) -> None:
    from alignrec.pipeline.encode.batching import Items  # loads torch
    from alignrec.pipeline.encode.write import delete_unlisted_sets, write_set

    delete_unlisted_sets(run)
    if run.item not in run.params[Encode].encoders:
        run.note(skipped=f"{run.dataset} has nothing that is encoded by default")
        return
    items, known = Items.of(run.layout), run.layout.rows if run.params[Encode].reuse else None
    with run.progress(total=len(items.ids), unit="item") as bar:
        try:
            write_set(run, run.item, run.folder, items, bar.update, known)
        except NothingToFit as e:  # the other encoders suffice
            run.warn(f"{run.item}: {e}")
            return
    run.rows_in = run.rows_out = len(items.ids)


ENCODE = Stage(
    "encode",
    does="items -> the feature set of one encoder",
    writes="`features-*.parquet`, `set.json`, `encoder/`",
    reads=(INTERACTIONS, ITEMS, IMAGES),
    per="encoder",
    resumes=True,
    sections=("encoders",),
    params=Encode,
    main=main,
    loads=(ENCODERS,),
)
