"""interactions: raw ratings -> k-core, dense ids, train/valid/test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import schemas
from pipeline.benchmark.params import Benchmark
from pipeline.evaluation import cutoff
from pipeline.interactions.params import Interactions
from pipeline.run import Run
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.base import downloaded
from pipeline.sources.mmrec import MmrecSource
from pipeline.sources.registry import SOURCES
from pipeline.stage import SOURCE, Stage
from stages import dropped_rows
from stages.download import DOWNLOAD

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from pipeline.config.parameters import Source
    from pipeline.interactions.build import SplitTables
    from pipeline.interactions.division import Division
    from pipeline.interactions.repairs import Divided


def main(run: Run) -> None:
    from pipeline.interactions import build  # loads DuckDB
    from pipeline.interactions.division import Division

    source, params, layout = run.source, run.params[Interactions], run.layout
    division = Division(params.protocol, run.seed("split"), params.cold_share, params.most_train, params.draws)
    with build.database(run.folder / ".scratch", params.memory_limit) as db:
        split, own_split, rejects = _divided(run, db, division)
        _check_cutoffs(run, split)
        clock = _clock(source)
        run.write_all(split.users, layout.users, schemas.USERS)
        run.write_all(split.item_ids, layout.item_ids, schemas.ITEM_IDS)
        facts = {"timestamps": clock} | ({"split": "imported"} if own_split else {})
        facts |= {"division": split.division} if split.division else {}
        for path in (layout.interaction_rejects, *(drawn.interactions for drawn in layout.draws()[1:])):
            path.unlink(missing_ok=True)
        for number in range(division.draws if split.division else 1):
            rows = build.draw_again(db, division._replace(draw=number), split) if number else split.interactions
            run.write_all(rows, layout.draw(number).interactions, schemas.INTERACTIONS, **facts)
    if rejects is not None:
        run.write(rejects, layout.interaction_rejects, schemas.REJECTS)
    run.rows_in, run.rows_out = split.rows, split.rows - sum(split.drops.values())
    for reason, n in split.drops.items():
        run.count(reason, n)
    run.note(**split.facts)


def _divided(run: Run, db: DuckDBPyConnection, division: Division) -> Divided:
    from pipeline.interactions import build, repairs

    source, params, raw = run.source, run.params[Interactions], downloaded(run.layout.sources)
    if source.has_split:
        return repairs.Divided(_published(run, db, raw, division), False, None)

    def divide(ratings: str, own: bool) -> SplitTables:
        if own:
            return build.import_split(db, ratings, params.min_rating, division)
        return build.split(db, ratings, params.user_core, params.item_core, division, params.min_rating)

    return repairs.split(db, source.reader(), raw, run.folder / ".scratch", divide)


def _published(run: Run, db: DuckDBPyConnection, raw: dict[str, Path], division: Division) -> SplitTables:
    from pipeline.interactions import build
    from pipeline.sources import mmrec

    source, rule = run.source, run.params[Interactions].min_rating
    users, items = build.load_published(db, source.reader().ratings(raw))
    names = None
    if isinstance(source, MmrecSource):
        asins = mmrec.asins(raw.get("metadata"), items)
    else:
        asins = mmrec.numbered(raw[mmrec.ITEMS], "itemID", ("asin", "parent_asin"), items)
        if mmrec.USERS in raw:
            names = mmrec.numbered(raw[mmrec.USERS], "userID", ("user_id", "reviewerID"), users)
    return build.import_published(db, asins, _clock(source) != "none", rule, division, names)


def _clock(source: Source) -> str:
    if isinstance(source, AmazonSource) and source.split:
        return source.split.timestamps
    return source.timestamps if isinstance(source, MmrecSource) else "unix"


def _check_cutoffs(run: Run, split: SplitTables) -> None:
    run.params[Benchmark].check(split.facts["items"])
    if split.division.startswith(schemas.COLD_ITEMS):
        cold = split.facts["cold_valid_items"], split.facts["cold_test_items"]
        run.params[Benchmark].check_cold(*cold)
        if near := cutoff.near(min(cold)):
            run.warn(f"{near} Raise interactions.cold_share.")


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
    check=dropped_rows.interactions,
)
