"""Update the tables of figures in the docs: `make figures`.

    python -m benchmarks._figures README.md docs/sample.md [--root outputs] [--one-network]

Blocks between `<!-- figures: KIND DATASET [FILTER ...] -->` and `<!-- /figures -->` are rewritten. Filters are models
and feature sets; probes too for `probes`, datasets for `content`, parts of the study for `article`.

Each block of one dataset ends with the network that it was made from. Where that is not the network of the last run, it
says so, and which command makes it again. Pages that would show two networks without saying so are refused, and with
`--one-network` also those that say so.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.evidence import (
    HEADLINE,
    MAIN,
    Comparison,
    Figure,
    list_comparisons,
)
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.cutoff import COLD
from alignrec.pipeline.report import probes as probed
from alignrec.pipeline.report.figures import recorded_figures
from alignrec.pipeline.report.table import (
    describe_seeds,
    format_figure,
    markdown,
    measure_name,
    without_zero,
)
from alignrec.pipeline.runtime.layout import Layout
from benchmarks import _networks

FIGURE = re.compile(r"(\d*\.\d+)(?: ± (\d*\.\d+))?")
BLOCK = re.compile(r"(<!-- figures: (\S+) (\S+)([^\n]*) -->\n).*?(<!-- /figures -->)", re.DOTALL)
SHOWN = ("zero_shot", "item_cf", "content_knn")  # probes in tables of probes
PROBE_CAPTIONS = {
    "cold_items": "*cold items*: products without a purchase yet, ranked for each user",
    "zero_shot": "*zero shot*: a user's last item, from the earlier ones",
    "item_cf": "*item cf*: the product most often bought with another",
    "content_knn": "*content knn*: a user's test items, from the train items",
}
COLUMNS = (MAIN, HEADLINE[-1])  # metrics in tables of results
PROTOCOLS = {
    "_cold": "cold items",
    "_few": "3 interactions a user",
    "": "all users",
}  # suffix of a case -> column


class Page(NamedTuple):
    """An updated page, and what is wrong with its blocks."""

    text: str
    absent: list[str]  # blocks without outputs, which stay as they are, and why
    stale: list[str]  # commands that make blocks of another network again


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="figures", description=__doc__.partition("\n")[0])
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--root", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--one-network", action="store_true", help="refuse pages with blocks of another network"
    )
    own = parser.parse_args(arguments)

    pages = {path: rewritten(path.read_text(encoding="utf-8"), own.root) for path in own.pages}
    stale = [command for page in pages.values() for command in page.stale]
    faults = _networks.find_mixed([page.text for page in pages.values()])
    if own.one_network and stale:
        faults.append(f"some blocks were made from another network: {_list_commands(stale)}")
    if faults:
        parser.exit(1, f"error: no page was written: {'; '.join(faults)}\n")

    for path, page in pages.items():
        io.write_bytes(path, page.text.encode())
        for block in page.absent:
            print(f"{path}: unchanged: {block}", file=sys.stderr)
    if stale:
        print(f"made from another network: {_list_commands(stale)}", file=sys.stderr)


def _list_commands(commands: Iterable[str]) -> str:
    return "; ".join(f"`{command}`" for command in dict.fromkeys(commands)) + " makes them again"


def rewritten(text: str, root: Path) -> Page:
    """Return the updated page and its faults; ValueError for a table that is not in KINDS."""
    absent: list[str] = []
    stale: list[str] = []

    def update(match: re.Match[str]) -> str:
        kind, dataset, only = match[2], match[3], match[4].split()
        if kind not in KINDS:
            raise ValueError(f"figures: no table '{kind}'; there are {', '.join(KINDS)}")

        layout = Layout(root, dataset)
        body = match[0].removeprefix(match[1]).removesuffix(match[5])
        stated: str | None = None
        try:
            made = "".join(f"{line}\n" for line in KINDS[kind](layout, only))
            shown = _networks.STATEMENT.sub("", body)
            same = _networks.stated_network(body) == _networks.read_network(layout)
            if kind == "article" or not (same and is_same(shown, made, least_step(layout))):
                body = made
        except (FileNotFoundError, UserError) as e:
            stated = _networks.stated_network(body)
            absent.append(f"{kind} {dataset}: {e}")

        if kind in OF_ONE_DATASET:
            body, commands = _networks.append_networks(body, kind, layout, only, stated)
            stale.extend(commands)
        return match[1] + body + match[5]

    return Page(BLOCK.sub(update, text), absent, stale)


def is_same(shown: str, made: str, step: float) -> bool:
    """Whether each figure is within its shown deviation of the other, or else within a step."""
    earlier, later = (
        sorted(text.strip().splitlines(), key=_without_figures) for text in (shown, made)
    )
    if [*map(_without_figures, earlier)] != [*map(_without_figures, later)]:
        return False
    pairs = zip(*(FIGURE.finditer("\n".join(lines)) for lines in (earlier, later)), strict=True)
    return all(
        abs(float(old[1]) - float(new[1])) <= float(old[2] or step) + 1e-9 for old, new in pairs
    )


def _without_figures(line: str) -> str:
    return FIGURE.sub("", line)


def least_step(layout: Layout) -> float:
    """Return by how much one case more moves the probe with the fewest; 0 without probes."""
    probes = probed.read_probes(io.read_json(layout.probes)) if layout.probes.is_file() else {}
    return max((1 / probe.cases for probe in probes.values() if probe.cases), default=0.0)


def results(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield a table per protocol: test metrics of models and feature sets, best Recall@20 first."""
    for comparison in list_comparisons(io.read_table(layout.results, schemas.RESULTS)):
        rows = [
            (row.model, row.features, *(without_zero(format_figure(row.cells.get(key))) for key in COLUMNS))
            for row in comparison.rows if _named(comparison, row.model, row.features, only)
        ]  # fmt: skip
        yield markdown(("model", "features", *(measure_name(*key) for key in COLUMNS)), rows)
        yield from ("", f"Test figures, {_judged(comparison)}")


def matrix(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield a table per protocol: test Recall@20 of models by feature sets, the more numerous as rows."""
    for comparison in list_comparisons(io.read_table(layout.results, schemas.RESULTS)):
        rows = [row for row in comparison.rows if _named(comparison, row.model, row.features, only)]
        cells = {
            (row.features, row.model): without_zero(format_figure(row.cells.get(MAIN)))
            for row in rows
        }
        models, sets = (
            list(dict.fromkeys(getattr(row, of) for row in rows)) for of in ("model", "features")
        )
        if len(models) > len(sets):
            yield markdown(
                ("model", *sets), [(m, *(cells.get((f, m), "") for f in sets)) for m in models]
            )
        else:
            yield markdown(
                ("features", *models), [(f, *(cells.get((f, m), "") for m in models)) for f in sets]
            )
        yield from ("", f"Test Recall@20, {_judged(comparison)}", "")


def _named(comparison: Comparison, model: str, features: str, only: Sequence[str]) -> bool:
    """Whether the filters match; models (or feature sets) are not filtered if none is named."""
    models, sets = (
        {getattr(row, of) for row in comparison.rows} & {*only} for of in ("model", "features")
    )
    return (not models or model in models) and (not sets or features in sets)


def _judged(comparison: Comparison) -> str:
    seeds = describe_seeds([max(row.seeds for row in comparison.rows)])
    return f"{seeds}; protocol `{comparison.protocol}`, `{comparison.fingerprint}`."


def _raw_and_processed(probe: probed.ProbeFigures, name: str) -> str:
    values = (probe.by_set(form, probe.probe.figure) for form in probe.forms)
    return ", ".join(f"{of[name]:.3f}" for of in values if name in of)


def probes(layout: Layout, only: Sequence[str]) -> Iterator[str]:
    """Yield probe results of feature sets, raw and processed, best zero-shot first."""
    figures = io.read_json(layout.probes)
    asked = {key: probe for key, probe in probed.read_probes(figures).items() if not probe.skipped}
    found = {
        key: asked[key] for key in [key for key in only if key in asked] or SHOWN if key in asked
    }
    first = next(iter(found.values()))
    sets = {*only} - {*found}
    names = [
        name for name in first.sort_sets("raw", first.probe.figure) if not sets or name in sets
    ]
    yield markdown(
        (
            "features",
            *(f"{key.replace('_', ' ')} {probe.probe.figure}" for key, probe in found.items()),
        ),
        [
            (name, *(without_zero(_raw_and_processed(probe, name)) for probe in found.values()))
            for name in names
        ],
    )
    yield from ("", _probes_caption(found, names, figures["processed"]))


def _probes_caption(found: Iterable[str], names: Sequence[str], processed: dict[str, Any]) -> str:
    sentences = [
        "How often vectors alone rank what users chose among the first 20 items; 1 is always."
    ]
    asked = [PROBE_CAPTIONS[key] for key in found if key in PROBE_CAPTIONS]
    sentences.append(f"{'; '.join(asked)}.")
    if "shuffled" in names:
        sentences.append("`shuffled`, a control, gives each item the vector of another.")
    if "chosen_by" in processed:
        form = (
            f"centred and reduced to {processed['width']} numbers, where that helps on validation"
        )
        sentences.append(f"First figure: vectors as they are; second: {form}.")
    else:
        sentences.append(f"Raw, then processed. {probed.describe_processing(processed)}")
    return " ".join(sentences)


def content(layout: Layout, datasets: Sequence[str]) -> Iterator[str]:
    """Yield test Recall@20 by feature set and protocol, from cases of `tests.realdata` in the folder of `layout`."""
    columns: dict[str, dict[str, Figure]] = {}
    for name in datasets:
        for suffix, users in PROTOCOLS.items():
            case = Layout(layout.root / layout.dataset / f"{name}_content{suffix}", name)
            found = list_comparisons(io.read_table(case.results, schemas.RESULTS))
            one = next((c for c in found if c.protocol.endswith(COLD)), found[0])
            rows = [
                row for row in one.rows if row.features != "none" or not one.protocol.endswith(COLD)
            ]
            columns[f"{name}, {users}"] = {row.features: row.cells[MAIN] for row in rows}
    sets = dict.fromkeys(name for cells in columns.values() for name in cells)
    yield markdown(
        (
            "features",
            *columns,
        ),  # no deviations, as closed-form models on one split give equal results
        [(s, *(without_zero(format_figure(of.get(s))) for of in columns.values())) for s in sets],
    )
    yield ""
    yield "Mean ± sd over 5 resampled splits, except for all users; best of 8 settings on validation. Cold items have"
    yield "no train interactions and are ranked among themselves; EASE cannot score them. `shuffled` permutes vectors."


def article(layout: Layout, parts: Sequence[str]) -> Iterator[str]:
    """Yield tables of the article and of the experiments: the named parts, or all available ones."""
    # from files in git rather than the last report, as the default run makes none of these tables
    kept = recorded_figures(layout)
    for path in [kept / f"article-{part}.json" for part in parts] or sorted(
        kept.glob("article-*.json")
    ):
        for table in io.read_json(path):
            head = [table["head"][0] or table["heading"], *table["head"][1:]]
            yield from (markdown(head, table["rows"]), "", table["note"], "")


KINDS: dict[str, Callable[[Layout, Sequence[str]], Iterator[str]]] = {
    "results": results, "matrix": matrix, "probes": probes, "article": article, "content": content,
}  # fmt: skip
OF_ONE_DATASET = ("results", "matrix", "probes", "article")  # kinds


if __name__ == "__main__":
    main(sys.argv[1:])
