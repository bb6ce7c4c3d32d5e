"""Tables of figures in the docs, written from the files that hold them: `make figures`.

    python -m benchmarks._figures README.md docs/accuracy.md [--root outputs]

A block stands between `<!-- figures: results sample -->` and `<!-- /figures -->`. It names a table of KINDS and a data
set, whose outputs lie under ROOT; a folder of ROOT may stand before the name, as in `realdata/movies_cold:movies`.
Words that follow are the only models and feature sets shown; of `content` data sets, of `article` parts of the study.
A block whose outputs are absent stays as it is, and is named. Nothing else in a page changes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import COLD
from pipeline.evaluation.evidence import MAIN, Cell, comparisons
from pipeline.layout import Layout
from pipeline.report import ceiling as planted
from pipeline.report import probes as probed
from pipeline.report import recommenders
from pipeline.report.article import PARTS
from pipeline.report.table import Table, markdown
from pipeline.report.words import figure, measure, short, spread

BLOCK = re.compile(r"(<!-- figures: (\S+) (\S+)([^\n]*) -->\n).*?(<!-- /figures -->)", re.DOTALL)
SHOWN = ("zero_shot", "item_cf", "content_knn")  # probes of a table of probes
PROTOCOLS = {"_cold": "cold items", "_few": "3 interactions a user", "": "all users"}
"""end of a case's name -> the column of its figures"""


def main(arguments: list[str]) -> None:
    """Rewrite the blocks of the pages whose outputs are there."""
    parser = argparse.ArgumentParser(prog="figures", description=__doc__.partition("\n")[0])
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--root", type=Path, default=Path("outputs"))
    own = parser.parse_args(arguments)
    for page in own.pages:
        text, absent = rewritten(page.read_text(encoding="utf-8"), own.root)
        io.write_bytes(page, text.encode())
        for block in absent:
            print(f"{page}: left as it was: {block}", file=sys.stderr)


def rewritten(text: str, root: Path) -> tuple[str, list[str]]:
    """Return a page with its blocks rewritten, and the blocks whose outputs are absent.

    Raises:
        ValueError: a block names a table that is not in KINDS.
    """
    absent = []

    def block(match: re.Match[str]) -> str:
        kind, where, only = match[2], match[3], match[4].split()
        if kind not in KINDS:
            raise ValueError(f"figures: no table '{kind}'; there are {', '.join(KINDS)}")
        layout = _beside(Layout(root, ""), where)
        try:
            lines = list(KINDS[kind](layout, only))
        except (FileNotFoundError, UserError) as e:
            absent.append(f"{kind} {where}: {e}")
            return match[0]
        return match[1] + "".join(f"{line}\n" for line in lines) + match[5]

    return BLOCK.sub(block, text), absent


def results(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield test figures of models on feature sets, all or some of each, a table a protocol, best Recall@20 first."""
    for comparison in comparisons(io.read_table(layout.results, schemas.RESULTS)):
        table = _without(recommenders.brief("", comparison), "seeds", measure("recall", 10))
        yield markdown(table.head, [row for row in table.rows if _named(row, table.rows, only)])
        yield ""
        seeds = max(row.seeds for row in comparison.rows)
        under = f"protocol `{comparison.protocol}`, `{comparison.fingerprint}`"
        yield f"Test figures, {spread([seeds])}; {under}."


def matrix(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield test Recall@20 of models on feature sets, all or some: a table a protocol, whichever are more as rows."""
    for comparison in comparisons(io.read_table(layout.results, schemas.RESULTS)):
        names = [(row.model, row.features) for row in comparison.rows]
        rows = [row for row, own in zip(comparison.rows, names, strict=True) if _named(own, names, only)]
        models = list(dict.fromkeys(row.model for row in rows))
        cells = {(row.features, row.model): _short(row.cells.get(MAIN)) for row in rows}
        sets = list(dict.fromkeys(row.features for row in rows))
        if len(models) > len(sets):
            yield markdown(("model", *sets), [(m, *(cells.get((f, m), "") for f in sets)) for m in models])
        else:
            yield markdown(("features", *models), [(f, *(cells.get((f, m), "") for m in models)) for f in sets])
        yield ""
        seeds = max(row.seeds for row in rows)
        under = f"protocol `{comparison.protocol}`, `{comparison.fingerprint}`"
        yield f"Test Recall@20, {spread([seeds])}; {under}."
        yield ""


def probes(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield the probes of every feature set, or of some, raw and processed, best zero-shot first."""
    figures = io.read_json(layout.probes)
    found = {key: probe for key, probe in probed.read(figures).items() if key in SHOWN and not probe.skipped}
    first = next(iter(found.values()))
    names = [name for name in first.ordered("raw", first.probe.figure) if not only or name in only]
    yield markdown(
        ("features", *(f"{key.replace('_', ' ')} {probe.probe.figure}" for key, probe in found.items())),
        [(name, *(probe.both(name, probe.probe.figure) for probe in found.values())) for name in names],
    )
    yield ""
    yield f"Raw, then processed. {probed.processing(figures['processed'])}"


def ceiling(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield how far feature sets, all or some, come from chance to what the generator planted."""
    for table in planted.tables(io.read_json(layout.probes)):
        yield from _as_it_is(replace(table, rows=[row for row in table.rows if not only or row[0] in only]))


def content(folder: Layout, datasets: Sequence[str]) -> Iterator[str]:
    """Yield test Recall@20 by feature set, of cold items, of users with few train interactions, and of all users.

    Args:
        folder: in place of a data set, the folder below the root that has cases NAME_content, _cold and _few of
            `tests.realdata`.
        datasets: the names.
    """
    columns: dict[str, dict[str, Cell]] = {}
    for name in datasets:
        for suffix, users in PROTOCOLS.items():
            case = Layout(folder.root / folder.dataset / f"{name}_content{suffix}", name)
            found = comparisons(io.read_table(case.results, schemas.RESULTS))
            one = next((c for c in found if c.protocol.endswith(COLD)), found[0])
            rows = [row for row in one.rows if row.features != "none" or not one.protocol.endswith(COLD)]
            columns[f"{name}, {users}"] = {row.features: row.cells[MAIN] for row in rows}
    sets = dict.fromkeys(name for cells in columns.values() for name in cells)
    yield markdown(("features", *columns), [(s, *(_single(of.get(s)) for of in columns.values())) for s in sets])
    yield ""
    yield "Mean ± sd over 5 draws, where a protocol has draws; 8 settings tried on valid. Cold items have no train"
    yield "interactions and are ranked by themselves, which EASE cannot. `shuffled` has the vectors at the wrong items."


def article(layout: Layout, parts: Sequence[str]) -> Iterator[str]:
    """Yield the article's tables, of some parts or of all that are there, from what git keeps of runs."""
    for part in parts or [name for name in PARTS if layout.figures(f"article-{name}").exists()]:
        for table in io.read_json(layout.figures(f"article-{part}")):
            yield from (markdown(table["head"], table["rows"]), "", table["note"], "")


KINDS: dict[str, Callable[[Layout, Sequence[str]], Iterator[str]]] = {
    "results": results,
    "matrix": matrix,
    "probes": probes,
    "ceiling": ceiling,
    "article": article,
    "content": content,
}  # name of a table -> its lines


def _beside(layout: Layout, where: str) -> Layout:
    """Return another data set, whose folder below the first one's root may stand before its name."""
    folder, _, dataset = where.rpartition(":")
    return Layout(layout.root / folder, dataset)


def _without(table: Table, *heads: str) -> Table:
    """Return a table without some columns, and without the marks that a page does not show."""
    kept = [column for column, head in enumerate(table.head) if head not in heads]
    rows = [[row[column] for column in kept] for row in table.rows]
    return replace(table, head=[table.head[column] for column in kept], rows=rows, marks={})


def _as_it_is(table: Table) -> Iterator[str]:
    """Yield a table of the report, its note below it."""
    yield from (table.markdown, "", table.note)


def _named(row: Sequence[str], rows: Sequence[Sequence[str]], only: Sequence[str]) -> bool:
    """Return whether a row's model and feature set are named; of what no row is named, all are shown."""
    named = [{name[column] for name in rows} & {*only} for column in (0, 1)]
    return all(not names or row[column] in names for column, names in enumerate(named))


def _short(cell: Cell | None) -> str:
    return short(figure(cell))


def _single(cell: Cell | None) -> str:
    """Return a figure without its deviation where all runs are equal, as those of closed forms on one split."""
    return _short(cell).removesuffix(" ± .0000")


if __name__ == "__main__":
    main(sys.argv[1:])
