"""Tables of figures in the docs, written from the files that hold them: `make figures`.

    python -m benchmarks._figures README.md docs/accuracy.md [--root outputs]

A block stands between `<!-- figures: results sample -->` and `<!-- /figures -->`. It names a table of KINDS and a data
set, whose outputs lie under ROOT; a folder of ROOT may stand before the name, as in `realdata/movies_cold:movies`.
Words that follow are the only models, or feature sets, shown.
A block whose outputs are absent stays as it is, and is named. Nothing else in a page changes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

import schemas
from benchmarks import _judge
from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.evidence import MAIN, Cell, comparisons
from pipeline.facts import codes as coded
from pipeline.facts import league as leagues
from pipeline.facts import probes as probed
from pipeline.facts import recommenders, study
from pipeline.facts.codes import Judged
from pipeline.facts.table import Table, markdown
from pipeline.facts.words import figure, measure, short
from pipeline.layout import Layout

BLOCK = re.compile(r"(<!-- figures: (\S+) (\S+)([^\n]*) -->\n).*?(<!-- /figures -->)", re.DOTALL)
PROBES = ("zero_shot", "item_cf", "content_knn")


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
    """Return a page with its blocks made anew, and the blocks whose outputs are absent.

    Raises:
        ValueError: a block names a table that is not in KINDS.
    """
    absent = []

    def block(match: re.Match[str]) -> str:
        kind, where, only = match[2], match[3], match[4].split()
        if kind not in KINDS:
            raise ValueError(f"figures: no table '{kind}'; there are {', '.join(KINDS)}")
        folder, _, dataset = where.rpartition(":")
        layout = Layout(root / folder, dataset)
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
        table = recommenders.brief("", comparison)
        yield markdown(table.head, [row for row in table.rows if _named(row, table.rows, only)])
        yield ""
        yield f"Test figures, mean ± sd over seeds; protocol `{comparison.protocol}`, `{comparison.fingerprint}`."


def matrix(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield test Recall@20 of models, or of some, on feature sets: a table a protocol, whichever are more as rows."""
    for comparison in comparisons(io.read_table(layout.results, schemas.RESULTS)):
        rows = [row for row in comparison.rows if not only or row.model in only]
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
        yield f"Test Recall@20, mean ± sd over {seeds} seeds; {under}."
        yield ""


def probes(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield the probes of every feature set, or of some, raw and processed, best zero-shot first."""
    figures = io.read_json(layout.probes)
    found = {key: probe for key, probe in probed.read(figures).items() if key in PROBES and not probe.skipped}
    first = next(iter(found.values()))
    names = [name for name in first.ordered("raw", first.probe.figure) if not only or name in only]
    yield markdown(
        ("features", *(f"{key.replace('_', ' ')} {probe.probe.figure}" for key, probe in found.items())),
        [(name, *(probe.both(name, probe.probe.figure) for probe in found.values())) for name in names],
    )
    yield ""
    yield f"Raw, then processed. {probed.processing(figures['processed'])}"


def verdicts(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield, for each probe, than which feature sets, or which of some, ours is better both raw and processed."""
    rows = [row for row in io.read_json(layout.probes)["verdicts"] if not only or row["b"] in only]
    for probe in dict.fromkeys(row["probe"] for row in rows):
        sentences = probed.sentences([row for row in rows if row["probe"] == probe])
        yield f"* {probe.replace('_', ' ')}: {sentences}"


def tests(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield the paired tests of Recall@20 that were declared before training, or those of some feature sets."""
    for table in recommenders.tests(io.read_table(layout.tests, schemas.TESTS)):
        if measure(*MAIN) in table.heading:
            yield f"{table.heading}: {table.note}"
            yield ""
            yield markdown(
                table.head, [row for row in table.rows if not only or str(row[0]).rpartition(" ")[2] in only]
            )
            yield ""


def codes(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield the figures of semantic IDs, or of some feature sets', a row a method."""
    yield from _as_it_is(coded.headline(_coded(layout, only)))


def codes_seeds(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield mean and sd over codebooks, from the last `alignrec compare --codes`, of some feature sets or all."""
    rows = coded.compared(io.read_json(layout.folder("compare") / "compare.json"))
    yield from _as_it_is(coded.over_seeds([row for row in rows if not only or row.features in only]))


def variants(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield AlignRec and the probes on the encoder of each variant of pre-training."""
    yield from _studied(layout, ["variants"], lambda parts: study.variants(parts["variants"]))


def generative(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield test figures of codes in use, best first."""
    yield from _studied(layout, ["generative"], study.used)


def league(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield who stands where in the league, some models or feature sets of it or all."""
    table = leagues.standing(io.read_table(layout.folder("league") / "league.parquet", schemas.LEAGUE), layout.dataset)
    yield from _as_it_is(replace(table, rows=[row for row in table.rows if _named(row, table.rows, only)]))


def league_facts(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield what follows from the league, or some: gains, lead, stability, fused, audit."""
    found = io.read_json(layout.folder("league") / "league.json")
    for table in leagues.facts(found, only):
        yield f"**{table.heading}.** {table.note}"
        yield ""
        yield table.markdown
        yield ""


def judge(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield how well the probes predict the benchmark."""
    yield from _as_it_is(_judge.table(layout))


KINDS: dict[str, Callable[[Layout, Sequence[str]], Iterator[str]]] = {
    "results": results,
    "matrix": matrix,
    "probes": probes,
    "verdicts": verdicts,
    "tests": tests,
    "codes": codes,
    "codes-seeds": codes_seeds,
    "variants": variants,
    "generative": generative,
    "judge": judge,
    "league": league,
    "league-facts": league_facts,
}
"""name of a table -> its lines"""


def _coded(layout: Layout, only: Sequence[str]) -> list[Judged]:
    """Return semantic IDs; UserError without any."""
    found = [judged for judged in coded.gathered(layout) if not only or judged.features in only]
    if not found:
        raise UserError(f"{layout.folder('semantic_ids')}: no codes; run `alignrec semantic_ids {layout.dataset}`")
    return found


def _studied(
    layout: Layout, parts: Sequence[str], tables: Callable[[dict[str, pa.Table]], Sequence[Table]]
) -> Iterator[str]:
    """Yield the tables of parts of the study; UserError without any."""
    shown = tables({part: io.read_table(layout.study(part), schemas.STUDY[part]) for part in parts})
    if not shown:
        raise UserError(f"{layout.study(parts[0])}: empty; run `alignrec study {layout.dataset}` with study.{parts[0]}")
    for table in shown:
        yield from _as_it_is(table)
        yield ""


def _as_it_is(table: Table) -> Iterator[str]:
    """Yield a table of the report, its note below it."""
    yield from (table.markdown, "", table.note)


def _named(row: Sequence[str], rows: Sequence[Sequence[str]], only: Sequence[str]) -> bool:
    """Return whether a row's model and feature set are named; of what no row is named, all are shown."""
    named = [{name[column] for name in rows} & {*only} for column in (0, 1)]
    return all(not names or row[column] in names for column, names in enumerate(named))


def _short(cell: Cell | None) -> str:
    return short(figure(cell))


if __name__ == "__main__":
    main(sys.argv[1:])
