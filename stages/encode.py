"""Stage encode: feature sets of pre-trained encoders."""

from functools import partial

from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    NothingToFit,
    find_network,
    settings_facts,
)
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS


def main(run: Run) -> None:
    from alignrec.pipeline.features import encode  # loads torch
    from alignrec.pipeline.features.batching import ItemContent
    from alignrec.pipeline.features.folder import resume_set

    params = run.params[Encode]
    # delete the outputs of encoders that left the matrix, which DVC would keep
    for path in run.out.parent.glob("*/features-00000.parquet"):
        if path.parent.name not in params.encoders:
            io.remove(path.parent)
    if run.item not in params.encoders:
        run.note(skipped=f"{run.dataset} has nothing that is encoded by default")
        return

    items = ItemContent.of(run.layout)
    further = ItemContent.further(run.layout)
    network = find_network(run.params.encoders, run.item, run.folder)
    inputs = encode.list_inputs(network, items, further)
    facts = settings_facts(network, params)
    cached_rows = run.layout.rows if params.reuse else None
    parts = [part for part in (items, further) if part is not None]
    n_items = sum(len(part.ids) for part in parts)
    with run.progress(total=n_items, unit="item") as bar:
        modules = encode.list_modules(network)
        resume_set(run, run.folder, inputs, facts, network.name, modules=modules)
        try:
            encoder = encode.prepare_set(
                network, items, run.folder, params, run.dataset, cached_rows
            )
        except NothingToFit as e:  # the other encoders still run
            run.warn(f"{run.item}: {e}")
            return

        context = encode.WriteContext(
            record={"stage": run.stage, "dataset": run.dataset},
            warn=partial(run.warn, recorded=False),
            done=bar.update,
        )
        for part in parts:
            encode.write_features(encoder, part, run.folder, params, context)

    run.note(**encode.report_quality(encoder.facts, run.folder, run.warn))
    run.rows_in = run.rows_out = n_items


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
