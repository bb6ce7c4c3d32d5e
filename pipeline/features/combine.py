"""Write the feature sets of stage `combine`, parts first; an interrupted run resumes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features import controls, maps, names
from alignrec.pipeline.features.folder import (
    ENCODER,
    SET,
    Facts,
    FeatureSet,
    Span,
    feature_rows,
    judge_quality,
)
from alignrec.pipeline.features.params import Combine, Leaked, Linear, Masked, Whitened
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import Block, JoinedMap
from alignrec.pipeline.runtime.code import versions
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.vectors.base import READERS, ImportedFile, feature_files
from alignrec.schemas import MODALITIES

OF_IMAGES = "records"  # file format whose features are computed only from images
FLAGS = ("has_image", "has_text")
Rows = Iterator[pa.Table]  # rows of a set, one shard at a time


def write_combinations(run: Run) -> None:
    """Write derived, imported and control sets, and delete those that are no longer listed."""
    files, own = feature_files(run.layout.sources), run.params[Combine]
    beside = [f"{names.TEXT}-{name}" for name, file in files.items() if file.format == OF_IMAGES]
    wanted = [*files, *beside, *own.sets, *own.controls]
    wanted = [name for name in names.feature_sets(run.params, run.dataset) if name in wanted]
    for folder in run.folder.glob("*/"):
        if folder.name not in wanted:
            rmtree(folder)
    ids, failed = io.read_table(run.layout.item_ids, schemas.ITEM_IDS), dict[str, UserError]()
    with run.progress(total=len(ids) * len(wanted), unit="vector") as bar:
        for name in wanted:
            try:
                _write_set(run, name, ids, files.get(name), bar.update)
            except UserError as e:  # continue with the other sets
                failed[name] = e
    if failed:
        faults = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(
            f"combine {run.dataset}: {len(failed)} of {len(wanted)} feature sets failed: {faults}"
        )
    run.rows_in, run.rows_out = len(ids), len(ids) * len(wanted)


def _write_set(
    run: Run, name: str, ids: pa.Table, file: ImportedFile | None, done: Callable[[int], object]
) -> None:
    folder, own = run.folder / name, run.params[Combine]
    there, of = run.layout.feature_sets(), names.parts_of(run.params, run.dataset, name)
    if name in own.controls:
        of = [one for one in names.sets_without_controls(run.params, run.dataset) if one in there][
            :1
        ]
    elif names.is_of_all(own.sets, name):
        for absent in (part for part in of if part not in there):
            run.warn(f"{name}: made without {absent}, which could not be encoded")
        of = [part for part in of if part in there]
    parts = [FeatureSet.of(run.layout, part) for part in of]
    definition = {"kind": "imported"} if file else names.definition_of(own.sets, name)
    if name in names.sets_with_text(run.params, run.dataset):
        definition = {"kind": names.CONCAT, "of": [part.name for part in parts]}
    facts = {
        "settings": definition,
        "shard_rows": run.params[Encode].shard_rows,
        "seed": own.seed,
        "name": name,
    }
    inputs = [run.layout.item_ids, *(path for part in parts for path in part.files())]
    modules = [f"alignrec.stages.{run.stage}"]
    if file:
        inputs += [file.path, *filter(None, [file.order])]
        modules += [READERS.module(file.format)]
    if (
        definition["kind"] in (names.LINEAR, names.MAPPED, names.LEAKED)
        and run.layout.interactions.is_file()
    ):
        inputs.append(run.layout.interactions)
    if definition["kind"] == names.PLANTED:
        inputs.append(run.layout.raw / controls.PLANTED)
    run.resume(folder, inputs, facts, modules=modules)
    if not (folder / SET).is_file():  # written last, so it marks a complete set
        rows, described = _make_set(run, name, definition, parts, ids, file)
        record = {"stage": run.stage, "dataset": run.dataset, "features": name, "params": facts}
        record |= {"versions": versions(), io.FINGERPRINT: described.fingerprint}
        for number, shard in enumerate(rows):
            if not (path := io.shard(folder, "features", number)).exists():
                width = shard["vector"].type.list_size
                about = {"encoder": {"dim": width} | described.model} if described.model else {}
                io.write_table(shard, path, schemas.features(width), record | about)
            done(len(shard))
        io.write_json(folder / SET, described.model_dump())
    else:
        done(len(ids))
    _note_set(run, FeatureSet(name, folder), parts, file)


def _make_set(
    run: Run,
    name: str,
    definition: Mapping[str, Any],
    parts: Sequence[FeatureSet],
    ids: pa.Table,
    file: ImportedFile | None,
) -> tuple[Rows, Facts]:
    kind, size, seed = definition["kind"], run.params[Encode].shard_rows, run.params[Combine].seed
    if file:
        return _imported_rows(file, ids, size), _describe(run, name, kind)
    if name in run.params[Combine].controls:
        seed = seed_for("encode", run.dataset, name, seed)
        original = parts[0] if parts else None
        return controls.control_rows(name, ids, original, size, seed), _describe(
            run, name, "control"
        )
    if kind == names.PLANTED:
        halves = controls.planted_halves(run.layout)
        spans = [Span(reads=[modality], width=x.shape[1]) for modality, x in halves.items()]  # type: ignore[list-item]
        planted = _describe(run, name, kind).model_copy(
            update={"reads": [*MODALITIES], "spans": spans}
        )
        return _ceiling_rows(np.hstack([*halves.values()]), ids, size), planted
    settings = names.settings_of({name: dict(definition)}, name)
    if isinstance(settings, Leaked):
        factors = controls.leaked_factors(
            run.layout, settings.width, seed_for("leaked", run.dataset, seed)
        )
        return _ceiling_rows(factors, ids, size), _describe(run, name, kind)
    if isinstance(settings, Masked):
        described = _describe(
            run, name, kind, parts, {"of": settings.of, "modality": settings.modality}
        )
        reads = [modality for modality in parts[0].facts.reads if modality != settings.modality]
        described = described.model_copy(update={"reads": reads, "parts": [], "portable": False})
        return _masked_rows(run.layout, parts[0], settings.modality), described
    if not parts:
        raise UserError(
            "no encoder to build on; list one under encode.encoders, such as tfidf, or leave it out"
        )
    encoder = run.folder / name / ENCODER
    fit, more = _fit_map(run, kind, settings, parts)
    if not (encoder / chain.NAME).is_file():
        chain.write(encoder, fit)
    fit = chain.read(encoder, [part.width for part in parts])  # compute rows with the stored map
    described = _describe(run, name, kind, parts, settings.model_dump(exclude={"of"}) | more)
    space = described.fingerprint | chain.digests(encoder, described.parts)
    # a map mixes the columns of its parts
    mixed = fit.last is not None or any(one is not None for one in fit.maps)
    known = not mixed and all(part.facts.reads for part in parts)
    update = {
        "spans": [span for part in parts for span in part.spans if known],
        "fingerprint": space,
    }
    return _mapped_rows(fit, parts), described.model_copy(update=update)


def _fit_map(
    run: Run, kind: str, settings: Any, parts: Sequence[FeatureSet]
) -> tuple[JoinedMap, dict[str, Any]]:
    if isinstance(settings, Linear):
        fit, chosen = maps.fit_linear(run.layout, parts, settings.width)
        return fit, chosen._asdict()
    if kind == names.CONCAT:
        return projections.concatenation_map([part.width for part in parts]), {}
    more = {}
    if isinstance(settings, Whitened):
        own = projections.fit_pca(parts[0].vectors, settings.width)
    else:
        more["seed"] = run.params[Combine].seed
        own = maps.fit_mapped(run.layout, parts[0], seed_for("mapped", run.dataset, more["seed"]))
    return JoinedMap([Block(0, np.ones(len(own.mean), bool), 1.0, unit=False)], [own]), more


def _imported_rows(file: ImportedFile, ids: pa.Table, size: int) -> Rows:
    matched = file.matched(ids["asin"].to_pylist())
    for start in range(0, len(ids), size):
        own = ids.slice(start, size)
        there = matched.place[start : start + len(own)] >= 0
        none = np.zeros(len(there), bool)
        unknown = pa.array(none, mask=there)  # items without a row have no input
        flags = (
            (pa.array(there), pa.array(none)) if matched.vectors.of_images else (unknown, unknown)
        )
        yield feature_rows(own, matched.rows(start, start + len(own)), *flags)


def _ceiling_rows(vectors: np.ndarray, ids: pa.Table, size: int) -> Rows:
    for start in range(0, len(ids), size):
        own = ids.slice(start, size)
        yield feature_rows(own, vectors[start : start + size], *np.ones((2, len(own)), bool))


def _mapped_rows(fit: JoinedMap, parts: Sequence[FeatureSet]) -> Rows:
    for number in range(len(parts[0].shards)):
        rows = [part.read(number) for part in parts]
        vectors = fit([io.matrix(part["vector"]) for part in rows])
        # Kleene logic: a modality was used if any part used it, unknown if none is known to have and one is unknown
        yield feature_rows(
            rows[0],
            vectors,
            *(reduce(pc.or_kleene, [part[flag] for part in rows]) for flag in FLAGS),
        )


def _masked_rows(layout: Layout, part: FeatureSet, modality: str) -> Rows:
    if {*part.facts.reads} != {*MODALITIES}:
        why = f"reads only {part.facts.reads[0]}s" if part.facts.reads else "is imported"
        raise UserError(f"{part.name} {why}, so nothing can be masked; leave it out")
    masked = _mask_shards(layout, part, modality)
    for number in range(len(part.shards)):
        rows = part.read(number)
        flags = [
            rows[flag] if flag != f"has_{modality}" else np.zeros(len(rows), bool) for flag in FLAGS
        ]
        yield feature_rows(rows, masked(number), *flags)


def _mask_shards(layout: Layout, part: FeatureSet, modality: str) -> Callable[[int], np.ndarray]:
    """Return a function from a shard's number to its vectors without a modality, float32 [n, F]."""
    # mask the parts before they are mapped: a mapped column mixes modalities
    if part.facts.parts:
        parts = [FeatureSet.of(layout, name) for name in part.facts.parts]
        fit = chain.read(part.encoder, [one.width for one in parts])
        masked = [_mask_shards(layout, one, modality) for one in parts]
        return lambda number: fit([make(number) for make in masked])
    if any(len(span.reads) != 1 for span in part.spans if modality in span.reads):
        raise UserError(
            f"no {modality} can be removed from {part.name}; encode it with fewer `modalities` instead"
        )
    # zero the encoder's columns that use the modality
    kept = np.concatenate(
        [np.repeat(modality not in span.reads, span.width) for span in part.spans]
    )
    return lambda number: np.where(kept, io.matrix(part.read(number)["vector"]), np.float32(0))


def _describe(
    run: Run,
    name: str,
    kind: str,
    parts: Sequence[FeatureSet] = (),
    settings: Mapping[str, Any] | None = None,
) -> Facts:
    of, own = [part.facts for part in parts], {"kind": kind, **(settings or {})}
    models = {
        "kind": kind,
        "parts": [{"name": one.encoder, "kind": one.network} | one.model for one in of],
    }
    space = {"parts": {one.encoder: one.fingerprint for one in of}} if of else {}
    facts = Facts(
        encoder=name,
        kind=kind,
        reads=[modality for modality in MODALITIES if any(modality in one.reads for one in of)],  # type: ignore[misc]
        settings=own,
        parts=[one.encoder for one in of],
        batch_size=of[0].batch_size if of else run.params[Encode].batch_size,
        image_size=of[0].image_size if of else Images().size,
        image_quality=of[0].image_quality if of else Images().quality,
        portable=bool(of) and all(one.portable for one in of),
        model=models if of else {},
    )
    return facts.with_space(space)


def _note_set(
    run: Run, made: FeatureSet, parts: Sequence[FeatureSet], file: ImportedFile | None
) -> None:
    note, warnings = judge_quality(made.facts, made.shards, file and file.path)
    run.note(**note)
    for warning in warnings:
        run.warn(warning)
    if file:
        used = (io.read_table(path, schemas.features(made.width), [*FLAGS]) for path in made.shards)
        nothing = (
            pc.sum(pc.and_(pc.invert(rows["has_image"]), pc.invert(rows["has_text"]))).as_py()
            for rows in used
        )
        run.count(f"{made.name}: item without a vector", sum(filter(None, nothing)))
    if made.facts.kind == names.LINEAR:
        joined = {block.part for block in chain.read(made.encoder).blocks}
        for part in (part for number, part in enumerate(parts) if number not in joined):
            why = (
                "which cannot read the texts"
                if part.distinguishes()
                else "whose vectors are all the same"
            )
            run.warn(f"{made.name}: made without {part.name}, {why}")
