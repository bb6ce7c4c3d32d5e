"""`alignrec embed`: encode a table into a folder of Parquet files, one vector per row."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from filelock import FileLock
from tqdm import tqdm

from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import (
    ENCODERS,
    Encoder,
    Network,
    find_network,
    settings_facts,
)
from alignrec.pipeline.features import names
from alignrec.pipeline.features.batching import ItemContent
from alignrec.pipeline.features.encode import (
    LazyEncoder,
    WriteContext,
    list_modules,
    prepare_set,
    report_quality,
    write_features,
)
from alignrec.pipeline.features.folder import SET, FeatureSet
from alignrec.pipeline.features.kinds import KINDS
from alignrec.pipeline.features.kinds.base import SetRecipe
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.release.choice import TABLE, Choice
from alignrec.pipeline.release.embedded import write_embedded, write_rejects
from alignrec.pipeline.release.item_dataset import STORED, write_dataset
from alignrec.pipeline.release.item_table import ItemTable
from alignrec.pipeline.release.loading import Project, facts_here, load_encoder
from alignrec.pipeline.runtime import progress
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.machine import versions
from alignrec.pipeline.runtime.run import ALTERED, Run

LABEL = "embed"  # of warnings and progress
ROWS_PER_CHECKPOINT = 256  # of an interrupted run: a minute at four rows per second
FACTS = "_embed.json"  # readers of Parquet folders ignore names that begin with _


class Summary(NamedTuple):
    """Row counts of an encoded table."""

    items: int  # written rows
    images: int  # written rows with an image
    texts: int  # written rows with a text
    rejects: Path  # table REJECTS, if rows were rejected
    rejected: Counter[str]  # reason -> rows


def embed(table: ItemTable, choice: Choice, to: Path, retry_failed: bool = False) -> Summary:
    """Encode a table into a folder, schema embedded(F).

    Rows that failed go to `<to>.rejects.parquet`. The folder must be new, or with `retry_failed` an
    earlier output, whose rows of equal content keep their vectors.
    """
    lock = io.next_to(to, "lock")
    _require_writable(to)
    rejects = to.with_name(f"{to.name}.rejects.parquet")
    with FileLock(lock):
        try:
            _refuse_existing(to, rejects, retry_failed)
            return _embed_next_to(to, rejects, table, choice)
        finally:
            lock.unlink(missing_ok=True)


def _require_writable(to: Path) -> None:
    """Raise UserError unless a folder can be made next to `to`, which a lock would wait for."""
    if not to.name:
        raise UserError(f"--to {to}: this is the folder that you are in; name one inside it")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent):
            pass
    except OSError as e:
        raise UserError(
            f"--to {to}: no folder can be made there ({e.strerror}); name another"
        ) from None


def _refuse_existing(to: Path, rejects: Path, retry_failed: bool) -> None:
    is_earlier_output = (to / FACTS).is_file()
    if not io.is_free(to) and not (retry_failed and is_earlier_output):
        remedy = "name another folder, or delete this one"
        if is_earlier_output:
            remedy += "; --retry-failed encodes what failed or is new"
        raise UserError(f"{to}: exists already; {remedy}")

    if rejects.exists() and not (rejects.is_file() and io.record(rejects).get("stage") == "embed"):
        raise UserError(
            f"{rejects}: exists already, and is not of `embed`; move it, or name another folder"
        )


def _embed_next_to(to: Path, rejects: Path, table: ItemTable, choice: Choice) -> Summary:
    work = io.next_to(to, "parts")
    layout = Layout(work, TABLE)
    networks = _find_networks(choice, layout)
    record = _describe(table, choice, networks)
    _resume(work, table, networks, record)

    bars: list[tqdm] = []
    with progress.print_heartbeat(LABEL, bars):
        images = choice.images if _reads("image", choice, networks) else None
        write_dataset(table, layout, images, _shard_rows(choice), record)
        folder, notes = _write_sets(choice, networks, layout, bars)

    finished = work / "done"
    shard_rows = choice.encode.shard_rows
    n_rows, n_images, n_texts = write_embedded(folder, layout, finished, record, table, shard_rows)
    if n_rows and not n_texts and _reads("text", choice, networks):
        _warn(f"no row has a text, and {choice.name} reads it; name its columns by --text")
    rejected = write_rejects(work / "rejects", rejects, record)
    space = io.fingerprint_of(io.record(io.shard(folder, "features", 0)))
    about = {"items": n_rows, "rejected": rejected, "notes": notes, io.FINGERPRINT: space}
    io.write_json(finished / FACTS, record | about)

    if to.exists():  # an empty folder, or earlier vectors
        to.rename(work / "before")
    finished.rename(to)
    shutil.rmtree(work)

    return Summary(n_rows, n_images, n_texts, rejects, rejected)


def _find_networks(choice: Choice, layout: Layout) -> list[Network]:
    listed = choice.encode.encoders
    return [find_network(choice.encoders, name, layout.out("encode", name)) for name in listed]


def _describe(table: ItemTable, choice: Choice, networks: Sequence[Network]) -> dict[str, Any]:
    """Provenance of the output, for its metadata."""
    if choice.project:
        origin = facts_here(choice.project, choice.name).model_dump()
    else:
        facts = {network.name: settings_facts(network, choice.encode) for network in networks}
        origin = {"encoders": facts, "sets": choice.sets}
    settings = {
        "encoder": choice.name,
        "made": origin,
        "encode": choice.encode.facts(),
        "columns": table.columns._asdict(),
        "images": choice.images.model_dump(include=STORED),
    }
    return {"stage": "embed", "params": settings, "versions": versions()}


def _resume(
    work: Path, table: ItemTable, networks: Sequence[Network], record: dict[str, Any]
) -> None:
    """Discard unfinished vectors of another table, encoder or image folder."""
    files = sorted(table.path.glob("*.parquet")) if table.path.is_dir() else [table.path]
    modules = [__name__]
    for network in networks:
        modules += list_modules(network)
        files += ENCODERS.source_files(network.kind)
        if network.origin:
            files += network.files()
    images = str(table.images and table.images.absolute())

    io.open_journal(work, Run.key(files, record | {"images": images}, modules))
    for path in io.drop_unlisted(work):
        _warn(f"{path} {ALTERED}")


def _warn(message: str) -> None:
    print(printable(f"warning: {LABEL}: {message}"), file=sys.stderr, flush=True)


def _reads(modality: str, choice: Choice, networks: Sequence[Network]) -> bool:
    of_project = choice.project is not None and modality in choice.reads
    return of_project or any(modality in network.reads for network in networks)


def _shard_rows(choice: Choice) -> int:
    return min(ROWS_PER_CHECKPOINT, choice.encode.shard_rows)


def _write_sets(
    choice: Choice, networks: Sequence[Network], layout: Layout, bars: list[tqdm]
) -> tuple[Path, dict[str, Any]]:
    """Write the chosen set and its parts; return its folder, and notes about encoders."""
    items = ItemContent.of(layout)
    settings = choice.encode.model_copy(update={"shard_rows": _shard_rows(choice)})
    total = len(items.ids) * (max(1, len(networks)) + len(choice.parts))
    notes: dict[str, Any] = {}
    with progress.stage_bar(LABEL, hidden=False, total=total, unit="vector") as bar:
        bars.append(bar)
        context = WriteContext({"stage": "embed"}, _warn, bar.update)
        for folder, encoder in _list_encoders(choice, networks, items, layout, settings):
            write_features(encoder, items, folder, settings, context)
            notes |= report_quality(encoder.facts, folder, _warn)
        for name in choice.parts:
            _combine(name, choice, items, layout, settings, context)
    return layout.features(choice.name), notes


def _list_encoders(
    choice: Choice,
    networks: Sequence[Network],
    items: ItemContent,
    layout: Layout,
    settings: Encode,
) -> Iterator[tuple[Path, LazyEncoder]]:
    """Yield the folder and encoder of each set to encode."""
    if choice.project:
        facts = facts_here(choice.project, choice.name)
        load = partial(_load_stored, choice.project, choice.name)
        rows = choice.cache and choice.cache / Run.key([], facts.model_dump(), [__name__])
        yield layout.out("encode", choice.name), LazyEncoder(facts, load, cached_rows=rows)
    for network in networks:
        folder = layout.out("encode", network.name)
        yield folder, prepare_set(network, items, folder, settings, TABLE, choice.cache)


def _load_stored(project: Project, name: str) -> Encoder:
    return load_encoder(project, name).encoder


def _combine(
    name: str,
    choice: Choice,
    items: ItemContent,
    layout: Layout,
    settings: Encode,
    context: WriteContext,
) -> None:
    """Write a combination of sets, by a map that is fitted to the table if its kind has one."""
    from alignrec.pipeline.features.combine import make_set  # loads SciPy

    folder = layout.out("combine", name)
    if (folder / SET).is_file():
        return
    definition = names.definition_of(choice.sets, name)
    recipe = SetRecipe(
        name=name,
        kind=KINDS[str(definition["kind"])],
        definition=definition,
        settings=names.settings_of(choice.sets, name),
        parts=[FeatureSet.of(layout, part) for part in choice.parts[name]],
        layout=layout,
        folder=folder,
        ids=items.ids,
        shard_rows=settings.shard_rows,
        batch_size=settings.batch_size,
        seed=choice.seed,
    )
    make_set(recipe, dict(context.record), context.done)
