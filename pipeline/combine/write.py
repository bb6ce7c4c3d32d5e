"""The sets of stage `combine`, written one after another, parts first; a killed run resumes."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.combine import controls, linear, mapped, names
from alignrec.pipeline.combine.imported import OF_IMAGES, imported_rows
from alignrec.pipeline.combine.params import Combine, Linear, Masked, Whitened
from alignrec.pipeline.encode import chain, quality
from alignrec.pipeline.encode.folder import ENCODER, LARGEST, SET, Facts, FeatureSet, Span, table
from alignrec.pipeline.encode.params import MODALITIES, Encode
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.harness.versions import versions
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io import fingerprint
from alignrec.pipeline.ops import joining, whitening
from alignrec.pipeline.ops.joining import Fit
from alignrec.pipeline.ops.whitening import Whitening
from alignrec.pipeline.vectors import matching
from alignrec.pipeline.vectors.readers import READERS


def write_combinations(run: Run) -> None:
    """Write all sets that are made of others, of files, or of nothing, and delete those that are named no more."""
    files, own = matching.feature_files(run.layout.sources), run.params[Combine]
    made = names.feature_sets(run.params, run.dataset)
    beside = [f"{names.TEXT}-{name}" for name, file in files.items() if file.format == OF_IMAGES]
    wanted = [name for name in made if name in [*files, *beside, *own.sets, *own.controls]]
    for folder in run.folder.glob("*/"):
        if folder.name not in wanted:
            rmtree(folder)
    ids, failed = run.read(run.layout.item_ids, schemas.ITEM_IDS), dict[str, UserError]()
    with run.progress(total=len(ids) * len(wanted), unit="item") as bar:
        for name in wanted:
            try:
                _write(run, name, ids, files, bar.update)
            except UserError as e:  # other sets do not depend on it
                failed[name] = e
    if failed:
        faults = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(f"combine {run.dataset}: {len(failed)} of {len(wanted)} feature sets failed: {faults}")
    run.rows_in, run.rows_out = len(ids), len(ids) * len(wanted)


def _write(run: Run, name: str, ids: pa.Table, files: dict[str, matching.File], done: Callable[[int], object]) -> None:
    folder, size = run.folder / name, run.params[Encode].shard_rows
    parts = [FeatureSet.of(run.layout, part) for part in _parts(run, name)]
    own = names.definition(run.params[Combine].sets, name) if name not in files else {"kind": "imported"}
    if name in names.with_text(run.params, run.dataset):
        own = {"kind": names.CONCAT, "of": [part.name for part in parts]}
    facts = {"settings": own, "shard_rows": size, "seed": run.params[Combine].seed, "name": name}
    inputs = [run.layout.item_ids, *(path for part in parts for path in part.files())]
    modules = [f"alignrec.stages.{run.stage}"]
    if name in files:
        inputs += [files[name].path, *filter(None, [files[name].order])]
        modules += [READERS.module(files[name].format)]
    if own["kind"] in (names.LINEAR, names.MAPPED) and run.layout.interactions.is_file():
        inputs.append(run.layout.interactions)
    if own["kind"] == names.PLANTED:
        inputs.append(run.layout.raw / controls.PLANTED)
    run.resume(folder, inputs, facts, modules=modules)
    if (folder / SET).is_file():  # which is written last
        done(len(ids))
        _finish(run, Facts.read(folder / SET, LARGEST), parts, io.shards(folder, "features"), files.get(name))
        return
    rows, described = _make(run, name, own, parts, ids, files, folder)
    record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts, "versions": versions()}
    record[fingerprint.KEY] = described.fingerprint
    for number in range(-(-len(ids) // size)):
        path = io.shard(folder, "features", number)
        shard = next(rows)
        if not path.exists():
            about = {"encoder": {"dim": shard["vector"].type.list_size} | described.model} if described.model else {}
            io.write_table(shard, path, schemas.features(shard["vector"].type.list_size), record | about)
        done(len(shard))
    io.write_json(folder / SET, described.model_dump())
    _finish(run, described, parts, io.shards(folder, "features"), files.get(name))


def _parts(run: Run, name: str) -> list[str]:
    if name in run.params[Combine].controls:
        return names.made(run.params, run.dataset)[:1]
    return names.parts_of(run.params, run.dataset, name)


def _make(
    run: Run, name: str, own: Any, parts: Sequence[FeatureSet], ids: pa.Table, files: dict[str, matching.File],
    folder: Path,
) -> tuple[Iterator[pa.Table], Facts]:  # fmt: skip
    """Return the rows of a set, a shard at a time, and what set.json says of it."""
    size, layout, kind = run.params[Encode].shard_rows, run.layout, own["kind"]
    if name in files:
        return imported_rows(files[name], ids, size), _describe(run, name, kind, [], [], {})
    if name in run.params[Combine].controls:
        seed = seed_for("encode", run.dataset, name, run.params[Combine].seed)
        rows = controls.control_rows(name, ids, parts[0] if parts else None, size, seed)
        return rows, _describe(run, name, "control", [], [], {})
    if kind == names.PLANTED:
        halves = controls.planted_halves(layout)
        spans = [Span(reads=[modality], width=x.shape[1]) for modality, x in halves.items()]  # type: ignore[list-item]
        every = np.hstack([*halves.values()])
        blocks = ((ids.slice(start, size), every[start : start + size]) for start in range(0, len(ids), size))
        rows = (table(own, x, *np.ones((2, len(own)), bool)) for own, x in blocks)
        return rows, _describe(run, name, kind, [], [], {}).model_copy(update={"reads": [*MODALITIES], "spans": spans})
    settings = names.settings_of({name: own}, name)
    if isinstance(settings, Masked):
        return _masked_rows(layout, parts[0], settings.modality), _describe_masked(run, name, parts[0], settings)
    if not parts:
        raise UserError("no encoder to build on; list one under encode.encoders, such as tfidf, or leave it out")
    fit, more = _fit(run, kind, settings, parts)
    if not (folder / ENCODER / chain.NAME).is_file():
        chain.write(folder / ENCODER, fit)
    fit = chain.read(folder / ENCODER, [part.width for part in parts])
    described = _describe(run, name, kind, parts, _spans(fit, parts), settings.model_dump(exclude={"of"}) | more)
    if more or isinstance(settings, Whitened):
        weights = {"weights": io.digest([folder / ENCODER / chain.MAPS])}
        described = described.model_copy(update={"fingerprint": described.fingerprint | weights})
    return _mapped_rows(fit, parts), described


def _fit(run: Run, kind: str, settings: Any, parts: Sequence[FeatureSet]) -> tuple[Fit, dict[str, Any]]:
    """Return the map of a combination, fitted to all items, and what was chosen or drawn for it."""
    if isinstance(settings, Linear):
        fit, way = linear.fit_linear(run.layout, parts, settings.width)
        return fit, way._asdict()
    if isinstance(settings, Whitened):
        return joining.single(whitening.fit_pca(parts[0].vectors, settings.width)), {}
    if kind == names.MAPPED:
        seed = run.params[Combine].seed
        own: Whitening = mapped.fit_mapped(run.layout, parts[0], mapped.map_seed(run.dataset, seed))
        return joining.single(own), {"seed": seed}
    return joining.concatenation([part.width for part in parts]), {}


def _mapped_rows(fit: Fit, parts: Sequence[FeatureSet]) -> Iterator[pa.Table]:
    for number in range(len(parts[0].shards)):
        rows = [part.read(number) for part in parts]
        vectors = fit([io.matrix(part["vector"]) for part in rows])
        # a modality was used if any part used it; null if no part is known to have, and one is unknown
        yield table(rows[0], vectors, *(reduce(pc.or_kleene, [part[f] for part in rows]) for f in _FLAGS))


_FLAGS = ("has_image", "has_text")


def _masked_rows(layout: Layout, part: FeatureSet, modality: str) -> Iterator[pa.Table]:
    if {*part.facts.reads} != {*MODALITIES}:
        why = f"reads only {part.facts.reads[0]}s" if part.facts.reads else "is imported"
        raise UserError(f"{part.name} {why}, so nothing can be masked; leave it out")
    masked = _without(layout, part, modality)
    for number in range(len(part.shards)):
        rows = part.read(number)
        flags = [rows[flag] if flag != f"has_{modality}" else np.zeros(len(rows), bool) for flag in _FLAGS]
        yield table(rows, masked(number), *flags)


def _without(layout: Layout, part: FeatureSet, modality: str) -> Callable[[int], np.ndarray]:
    """Return what makes a shard's vectors as if no item had a modality, float32 [n, F]; UserError if nothing can.

    Parts are masked before they are mapped; of an encoder's own vectors the modality's columns become zero.
    """
    if part.facts.parts:
        parts = [FeatureSet.of(layout, name) for name in part.facts.parts]
        fit = chain.read(part.encoder, [one.width for one in parts])
        masked = [_without(layout, one, modality) for one in parts]
        return lambda number: fit([make(number) for make in masked])
    if any(len(span.reads) != 1 for span in part.spans if modality in span.reads):
        raise UserError(f"no {modality} can be removed from {part.name}; encode it with fewer `modalities` instead")
    kept = np.concatenate([np.repeat(modality not in span.reads, span.width) for span in part.spans])
    return lambda number: np.where(kept, io.matrix(part.read(number)["vector"]), np.float32(0))


def _spans(fit: Fit, parts: Sequence[FeatureSet]) -> list[Span]:
    """Return the columns of a concatenation by modalities; none where a map mixes the parts."""
    if fit.last is not None or any(one is not None for one in fit.maps) or any(not part.facts.reads for part in parts):
        return []
    return [span for part in parts for span in part.spans]


def _describe(
    run: Run, name: str, kind: str, parts: Sequence[FeatureSet], spans: list[Span], settings: dict[str, Any]
) -> Facts:
    of = [part.facts for part in parts]
    models = {"kind": kind, "parts": [{"name": one.encoder, "kind": one.network} | one.model for one in of]}
    space = {"parts": {one.encoder: one.fingerprint for one in of}} if of else {}
    return Facts(
        encoder=name,
        kind=kind,
        reads=[modality for modality in MODALITIES if any(modality in one.reads for one in of)],  # type: ignore[misc]
        settings={"kind": kind, **settings},
        parts=[one.encoder for one in of],
        packages={},
        batch_size=of[0].batch_size if of else run.params[Encode].batch_size,
        image_size=of[0].image_size if of else Images().size,
        image_quality=of[0].image_quality if of else Images().quality,
        fingerprint={"kind": kind, **settings, **space},
        portable=bool(of) and all(one.portable for one in of),
        spans=spans,
        model=models if of else {},
    )


def _describe_masked(run: Run, name: str, part: FeatureSet, settings: Masked) -> Facts:
    own = {"of": settings.of, "modality": settings.modality}
    described = _describe(run, name, names.MASKED, [part], [], own)
    reads = [modality for modality in part.facts.reads if modality != settings.modality]
    return described.model_copy(update={"reads": reads, "parts": [], "portable": False})


def _finish(
    run: Run, described: Facts, parts: Sequence[FeatureSet], shards: Sequence[Path], file: matching.File | None
) -> None:
    """Note what run.json records of a whole set, and count items that a file lacks; warn of parts that say nothing."""
    quality.note_quality(run, described, shards, file and file.path)
    if file:
        nothing = (
            pc.sum(pc.and_(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))).as_py() or 0
            for rows in (io.read_table(path, schemas.features(io.width(path.parent)), [*_FLAGS]) for path in shards)
        )
        run.count(f"{described.encoder}: item without a vector", sum(nothing))
    for part in parts if described.kind == names.LINEAR and len(parts) > 1 else ():
        if not quality.distinguishes(part.shards):
            run.warn(f"{described.encoder}: made without {part.name}, whose vectors are all the same")
