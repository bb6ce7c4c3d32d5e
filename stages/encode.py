"""encode: items -> feature sets, a folder each: content encoders, imported files, controls."""

import shutil

import schemas
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.features.registry import FEATURES
from pipeline.run import Run
from pipeline.sources.registry import SOURCES
from pipeline.stage import SOURCE, Stage
from stages.download import DOWNLOAD
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS
from stages.pretrain import PRETRAIN


def main(run: Run) -> None:
    from pipeline.features.sets import FeatureSets  # load torch
    from pipeline.features.write import write_all
    from pipeline.items.texts import Texts

    ids = run.read(run.layout.item_ids, schemas.ITEM_IDS)
    texts = Texts(run.layout.items)
    sets = FeatureSets.of(run.layout, run.params[Encode], run.params.encoders)
    for folder in () if run.part else run.folder.glob("*/"):
        if folder.name not in sets.names:
            shutil.rmtree(folder)
    failed = write_all(run, sets, ids, texts)
    for error in failed.values():
        if not isinstance(error, UserError):
            raise error
    if failed:
        faults = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(f"encode {run.dataset}: {len(failed)} of {len(sets.names)} feature sets failed: {faults}")
    run.rows_in, run.rows_out = len(ids), len(ids) * len(sets.names)
    run.count("item without text", sum(not text.strip() for text in texts))


ENCODE = Stage(
    "encode",
    does="items -> the feature sets of every encoder, and the controls",
    writes="`<features>/features-*.parquet`",
    reads=(DOWNLOAD, INTERACTIONS, ITEMS, IMAGES, PRETRAIN),
    sections=("encoders", SOURCE),
    params=Encode,
    main=main,
    resumes=True,
    loads=(SOURCES, ENCODERS, FEATURES),
)
