"""The split of a source: published with its numbers, its own column, or by the protocol of the parameters."""

from pathlib import Path

from pipeline.config.parameters import Source
from pipeline.interactions import build, repairs
from pipeline.interactions.division import Db, Division
from pipeline.interactions.params import Interactions
from pipeline.interactions.repairs import Divided
from pipeline.run import Run
from pipeline.sources import mmrec
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.base import downloaded
from pipeline.sources.mmrec import MmrecSource


def split_source(run: Run, db: Db, division: Division) -> Divided:
    source, params, raw = run.source, run.params[Interactions], downloaded(run.layout.sources)
    if source.has_split:
        return Divided(_import_published(source, raw, db, division, params.min_rating), False, None)

    def divide(ratings: str, own: bool) -> build.SplitTables:
        if own:
            return build.import_split(db, ratings, params.min_rating, division)
        return build.split(db, ratings, params.user_core, params.item_core, division, params.min_rating)

    return repairs.split(db, source.reader(), raw, run.folder / ".scratch", divide)


def _import_published(
    source: Source, raw: dict[str, Path], db: Db, division: Division, min_rating: float | None
) -> build.SplitTables:
    users, items = build.load_published(db, source.reader().ratings(raw))
    names = None
    if isinstance(source, MmrecSource):
        asins = mmrec.asins(raw.get("metadata"), items)
    else:
        asins = mmrec.numbered(raw[mmrec.ITEMS], "itemID", ("asin", "parent_asin"), items)
        if mmrec.USERS in raw:
            names = mmrec.numbered(raw[mmrec.USERS], "userID", ("user_id", "reviewerID"), users)
    return build.import_published(db, asins, clock_of(source) != "none", min_rating, division, names)


def clock_of(source: Source) -> str:
    """Return what the source's times are: `unix` seconds, `none`, or as its split was published."""
    if isinstance(source, AmazonSource) and source.split:
        return source.split.timestamps
    return source.timestamps if isinstance(source, MmrecSource) else "unix"
