"""Stage interactions: k-core filtering, dense ids, and train/valid/test split."""

from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.pipeline.sources.base import SOURCES
from alignrec.stages.checks import check_catalogue, check_cold_items
from alignrec.stages.download import DOWNLOAD


def main(run: Run) -> None:
    from alignrec.pipeline.dataset import interactions  # loads DuckDB

    facts = interactions.write_tables(run)
    check_catalogue(run.params, facts["items"])
    cold = [facts[name] for name in ("cold_valid_items", "cold_test_items") if name in facts]
    warning = check_cold_items(run.params, *cold) if cold else ""
    if warning:
        run.warn(f"{warning} Raise interactions.cold_share.")


INTERACTIONS = Stage(
    "interactions",
    does="ratings -> k-core, dense ids, train/valid/test split",
    writes="`interactions.parquet`, `users.parquet`, `item_ids.parquet`",
    reads=(DOWNLOAD,),
    sections=(SOURCE,),
    params=Interactions,
    main=main,
    light=True,
    loads=(SOURCES,),
)
