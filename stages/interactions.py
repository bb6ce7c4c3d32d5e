"""interactions: raw ratings -> k-core, dense ids, train/valid/test split."""

from alignrec import schemas
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.evaluation import cutoff
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import SOURCE, Stage
from alignrec.pipeline.interactions.params import Interactions
from alignrec.pipeline.sources.registry import SOURCES
from alignrec.stages.download import DOWNLOAD

MOST_BELOW = 0.5  # share of ratings that may be below the core without a warning


def main(run: Run) -> None:
    from alignrec.pipeline.interactions import build, division, source_split  # load DuckDB

    params, layout = run.params[Interactions], run.layout
    how = division.Division(params.protocol, run.seed("split"), params.cold_share, params.most_train, params.draws)
    with build.database(run.folder / ".scratch", params.memory_limit) as db:
        tables, own_split, rejects = source_split.split_source(run, db, how)
        check_cutoffs(run, tables.facts, cold=tables.division.startswith(schemas.COLD_ITEMS))
        run.write_all(tables.users, layout.users, schemas.USERS)
        run.write_all(tables.item_ids, layout.item_ids, schemas.ITEM_IDS)
        facts = {"timestamps": source_split.clock_of(run.source)} | ({"split": "imported"} if own_split else {})
        facts |= {"division": tables.division} if tables.division else {}
        for number in range(how.draws if tables.division else 1):
            rows = build.draw_again(db, how._replace(draw=number), tables) if number else tables.interactions
            run.write_all(rows, layout.draw(number).interactions, schemas.INTERACTIONS, **facts)
    if rejects is not None:
        run.write(rejects, layout.interaction_rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = tables.rows, tables.rows - sum(tables.drops.values())
    for reason, n in tables.drops.items():
        run.count(reason, n)
    run.note(**tables.facts)


def check_cutoffs(run: Run, facts: dict[str, int], cold: bool) -> None:
    run.params[Benchmark].check(facts["items"])
    if cold:
        candidates = facts["cold_valid_items"], facts["cold_test_items"]
        run.params[Benchmark].check_cold(*candidates)
        if near := cutoff.near(min(candidates)):
            run.warn(f"{near} Raise interactions.cold_share.")


def check_losses(run: Run) -> None:
    if (below := run.drops["below_k_core"]) > MOST_BELOW * run.rows_in:
        run.warn(
            f"{below:,} of {run.rows_in:,} ratings are of users or items with too few; lower interactions.user_core "
            "and item_core if these should count"
        )


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
    check=check_losses,
)
