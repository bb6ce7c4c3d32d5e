"""Write an export: a folder that appears only when complete, with a README."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.export import formats
from alignrec.pipeline.release.export.content import ExportContent, write_tsv

# format -> function that writes its files and returns the README's usage text, and notes on what it changes
FORMATS: dict[str, Callable[[ExportContent, Path], tuple[str, list[str]]]] = {
    "mmrec": formats.write_mmrec,
    "recbole": formats.write_recbole,
    "cornac": formats.write_cornac,
    "npy": formats.write_npy,
    "hf": formats.write_hf,
    "minionerec": formats.write_minionerec,
}
CODED = {"minionerec"}  # formats that need semantic IDs


def write_export(content: ExportContent, form: str, to: Path) -> list[str]:
    """Write an export to a new or empty folder and return its notes."""
    to, work = to.resolve(), io.next_to(to.resolve(), "new")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to}: holds something already; name another folder, or delete this one")
    with io.scratch(work) as new:
        if any(content.filled.values()):
            rows = [(name, item) for name, items in content.filled.items() for item in items]
            names, items = (pa.array(column) for column in zip(*rows, strict=True))
            write_tsv(
                new / "filled.tsv",
                pa.table({"features": names, "item_id": items}),
                ["features", "item_id"],
            )
        how, notes = FORMATS[form](content, new)
        readme = new / "README.md"
        header = readme.read_text(encoding="utf-8") if readme.exists() else ""
        readme.write_text(header + _describe_export(content, form, notes) + how, encoding="utf-8")
        io.rename_folder(new, to)
    return notes


def wants_codes(form: str) -> bool:
    if form not in FORMATS:
        raise UserError(f"no format '{form}'; there are {', '.join(FORMATS)}")
    return form in CODED


def _describe_export(content: ExportContent, form: str, notes: Sequence[str]) -> str:
    numbered = "" if content.notes else ", numbered as in the dataset's `item_id`"
    rows = [
        f"# {content.name} for {form}\n",
        f"{len(content.items):,} items{numbered}.",
        *content.notes,
        *notes,
    ]
    if content.interactions is None:
        rows.append("Interactions are not here: the export was made from a release that has none.")
    else:
        rows.append(f"{len(content.interactions):,} interactions, split as in the dataset.")
        if content.clock() == "order":
            rows.append("Timestamps are positions in the user's sequence, not times.")
    columns = [content.items[name] for name in ("asin", "title", "brand")]
    columns += [] if content.users is None else [content.users["user"]]
    if formulas := sum(
        pc.sum(pc.match_substring_regex(column, r"^[=+\-@]")).as_py() or 0 for column in columns
    ):
        rows.append(
            f"{formulas:,} names begin with =, +, - or @, formulas to a spreadsheet: import them as text."
        )
    if any(content.filled.values()):
        rows.append(
            "In place of zeros, items without content (`filled.tsv`) have random numbers, each with the mean and the "
            "standard deviation of its column over the other items."
        )
    rows.append("\nFeature sets, row i is item i:\n")
    for name, table in content.features.items():
        filled = len(content.filled.get(name, ()))
        note = f"; zero rows filled with drawn numbers: {filled:,}" if filled else ""
        rows.append(f"- `{name}`: {table['vector'].type.list_size} dimensions{note}")
    return "\n".join([*rows, "\n"])
