"""Write an export: a folder that appears only when complete, with a README."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export.arrays import write_cornac, write_npy
from alignrec.pipeline.release.export.content import ExportContent, write_tsv
from alignrec.pipeline.release.export.mmrec import write_mmrec
from alignrec.pipeline.release.export.recbole import write_recbole
from alignrec.pipeline.runtime.removals import name_replacement

# format -> function that writes its files and returns the README's usage text, and notes on what
# it changes
EXPORT_WRITERS: dict[str, Callable[[ExportContent, Path], tuple[str, list[str]]]] = {
    "mmrec": write_mmrec,
    "recbole": write_recbole,
    "cornac": write_cornac,
    "npy": write_npy,
}
# formats for the whole catalogue; others are trained on, so they have the items with interactions
FORMATS_OF_ALL_ITEMS = {"npy"}
FORMULA = r"^[=+\-@]"  # pattern of names that a spreadsheet evaluates


def write_export(content: ExportContent, form: str, to: Path) -> list[str]:
    """Write an export to a new or empty folder and return its notes."""
    to = to.resolve()
    if not io.is_free(to):
        raise UserError(f"{to}: holds something already; name another folder, or delete this one")

    with io.scratch(io.next_to(to, "new")) as folder:
        _write_filled(content, folder / "filled.tsv")
        usage, notes = EXPORT_WRITERS[form](content, folder)
        text = _describe_export(content, form, notes) + usage
        (folder / "README.md").write_text(text, encoding="utf-8")
        io.rename_folder(folder, to)
    return notes


def wants_all(form: str) -> bool:
    if form not in EXPORT_WRITERS:
        known = ", ".join(EXPORT_WRITERS)
        raise UserError(f"no format '{form}'; there are {known}{name_replacement(form)}")
    return form in FORMATS_OF_ALL_ITEMS


def _write_filled(content: ExportContent, path: Path) -> None:
    """List the items whose zero rows were filled, if any."""
    names: list[str] = []
    items: list[int] = []
    for name, rows in content.filled.items():
        names += [name] * len(rows)
        items += rows
    if items:
        table = pa.table({"features": names, "item_id": items})
        write_tsv(path, table, table.column_names)


def _describe_export(content: ExportContent, form: str, notes: Sequence[str]) -> str:
    numbered = "" if content.notes else ", numbered as in the dataset's `item_id`"
    lines = [f"# {content.name} for {form}\n", f"{len(content.items):,} items{numbered}."]
    lines += [*content.notes, *notes, *_describe_interactions(content)]

    formulas = _count_formulas(content)
    if formulas:
        lines.append(
            f"{formulas:,} names begin with =, +, - or @, formulas to a spreadsheet: "
            "import them as text."
        )
    if any(content.filled.values()):
        lines.append(
            "In place of zeros, items without content (`filled.tsv`) have random numbers, each "
            "with the mean and the standard deviation of its column over the other items."
        )

    lines.append("\nFeature sets, row i is item i:\n")
    for name, table in content.features.items():
        width = table["vector"].type.list_size
        filled = len(content.filled.get(name, ()))
        note = f"; zero rows filled with drawn numbers: {filled:,}" if filled else ""
        lines.append(f"- `{name}`: {width} dimensions{note}")
    return "\n".join([*lines, "\n"])


def _describe_interactions(content: ExportContent) -> list[str]:
    if content.interactions is None:
        return ["Interactions are not here: the export was made from a release that has none."]
    lines = [f"{len(content.interactions):,} interactions, split as in the dataset."]
    if content.clock() == "order":
        lines.append("Timestamps are positions in the user's sequence, not times.")
    return lines


def _count_formulas(content: ExportContent) -> int:
    columns = [content.items[name] for name in ("asin", "title", "brand")]
    if content.users is not None:
        columns.append(content.users["user"])
    counts = [pc.sum(pc.match_substring_regex(column, FORMULA)).as_py() for column in columns]
    return sum(filter(None, counts))
