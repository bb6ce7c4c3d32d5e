"""Write the feature sets of stage `combine`, parts first; an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.features import names
from alignrec.pipeline.features.folder import (
    SET,
    FeatureSet,
    drop_unlisted_sets,
    resume_set,
)
from alignrec.pipeline.features.kinds import CONTROL, IMPORTED, KINDS, imported
from alignrec.pipeline.features.kinds.base import SetRecipe
from alignrec.pipeline.features.kinds.fitted import map_shards
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.features.quality import judge_quality
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout
from alignrec.pipeline.runtime.machine import versions
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.vectors.base import READERS, ImportedFile, feature_files

OF_IMAGES = "records"  # file format whose features are computed only from images


def write_combinations(run: Run) -> None:
    """Write derived, imported and control sets, and delete those that are no longer listed."""
    declared = DeclaredSets(run.params, run.dataset)
    files = feature_files(run.layout.sources)
    listed = list_sets(declared, files)
    drop_unlisted_sets(run.folder, listed)

    ids = io.read_table(run.layout.item_ids, schemas.ITEM_IDS)
    failed: dict[str, UserError] = {}
    with run.progress(total=len(ids) * len(listed), unit="vector") as bar:
        for name in listed:
            try:
                recipe = resolve_recipe(run, declared, name, ids, files.get(name))
                write_combination(run, recipe, bar.update)
            except UserError as e:  # continue with the other sets
                failed[name] = e

    if failed:
        faults = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise UserError(
            f"combine {run.dataset}: {len(failed)} of {len(listed)} feature sets failed: {faults}"
        )
    run.rows_in = len(ids)
    run.rows_out = len(ids) * len(listed)


def list_sets(declared: DeclaredSets, files: dict[str, ImportedFile]) -> list[str]:
    """Return the sets that are made here, parts first."""
    with_text = [f"{names.TEXT}-{name}" for name, file in files.items() if file.format == OF_IMAGES]
    made_here = {*files, *with_text, *declared.combined, *declared.controls}
    return [name for name in declared.names() if name in made_here]


def resolve_recipe(
    run: Run, declared: DeclaredSets, name: str, ids: pa.Table, file: ImportedFile | None
) -> SetRecipe:
    definition = declared.definition_of(name)
    kind, settings = CONTROL, None
    if file:
        kind = IMPORTED
    elif name not in declared.controls:
        settings = names.settings_of({name: definition}, name)
        kind = KINDS[definition["kind"]]

    return SetRecipe(
        name=name,
        kind=kind,
        definition=definition,
        settings=settings,
        parts=[FeatureSet.of(run.layout, part) for part in present_parts(run, declared, name)],
        layout=run.layout,
        folder=run.folder / name,
        ids=ids,
        shard_rows=run.params[Encode].shard_rows,
        batch_size=run.params[Encode].batch_size,
        seed=run.params[Combine].seed,
        file=file,
        further=read_further(run.layout),
    )


def read_further(layout: Layout) -> pa.Table | None:
    path = layout.further_items
    if not path.is_file():
        return None
    return io.read_table(path, schemas.ITEMS, schemas.ITEM_IDS.names)


def present_parts(run: Run, declared: DeclaredSets, name: str) -> list[str]:
    present = run.layout.feature_sets()
    if name in declared.controls:
        return [original for original in declared.without_controls() if original in present][:1]

    parts = declared.parts_of(name)
    if not declared.takes_all(name):
        return parts

    for part in parts:
        if part not in present:
            run.warn(f"{name}: made without {part}, which could not be encoded")
    return [part for part in parts if part in present]


def write_combination(run: Run, recipe: SetRecipe, done: Callable[[int], object]) -> None:
    recorded = {
        "settings": recipe.definition,
        "shard_rows": recipe.shard_rows,
        "seed": recipe.seed,
        "name": recipe.name,
    }
    modules = [f"alignrec.stages.{run.stage}"]
    if recipe.file:
        modules.append(READERS.module(recipe.file.format))
    resume_set(run, recipe.folder, list_inputs(recipe), recorded, modules=modules, whole=True)

    if (recipe.folder / SET).is_file():  # written last, so it marks a complete set
        done(len(recipe.ids))
    else:
        record = {"stage": run.stage, "dataset": run.dataset, "features": recipe.name}
        make_set(recipe, record | {"params": recorded, "versions": versions()}, done)
    note_set(run, recipe)


def list_inputs(recipe: SetRecipe) -> list[Path]:
    inputs = [recipe.layout.item_ids]
    for part in recipe.parts:
        inputs += part.files()
    if recipe.further is not None:
        inputs.append(recipe.layout.further_items)
        inputs += [path for part in recipe.parts for path in further_shards(part)]
    return inputs + recipe.kind.files(recipe)


def make_set(recipe: SetRecipe, record: dict[str, Any], done: Callable[[int], object]) -> None:
    facts, shards = recipe.kind.make(recipe)
    record = record | {io.FINGERPRINT: facts.fingerprint}
    stems = {"features": shards, FURTHER_STEM: further_rows(recipe)}
    for stem, rows in stems.items():
        for number, shard in enumerate(rows):
            path = io.shard(recipe.folder, stem, number)
            if not path.exists():
                width = shard["vector"].type.list_size
                if facts.model:
                    record["encoder"] = {"dim": width} | facts.model
                io.write_table(shard, path, schemas.features(width), record)
            done(len(shard))
    io.write_json(recipe.folder / SET, facts.model_dump())


def further_rows(recipe: SetRecipe) -> Iterator[pa.Table]:
    """Yield the rows of items outside the k-core by the map that is fitted to the core.

    Nothing for sets without such a map, such as controls, and for those that are derived from one.
    """
    if recipe.further is None:
        return
    if recipe.file is not None:
        yield from imported.further_rows(recipe)
        return
    parts = [part for of in recipe.parts if (part := of.further()) is not None]
    has_map = (recipe.folder / ENCODER / chain.CHAIN_FILE).is_file()
    if has_map and len(parts) == len(recipe.parts):
        fit = chain.read(recipe.folder / ENCODER, [part.width for part in parts])
        yield from map_shards(fit, parts)


def further_shards(part: FeatureSet) -> list[Path]:
    further = part.further()
    return further.shards if further else []


def note_set(run: Run, recipe: SetRecipe) -> None:
    """Add quality and warnings of a written set to the record of the run."""
    written = FeatureSet(recipe.name, recipe.folder)
    note, warnings = judge_quality(written.facts, written.shards, recipe.file and recipe.file.path)
    run.note(**note)
    for warning in [*warnings, *recipe.kind.warnings(recipe, written)]:
        run.warn(warning)
    if recipe.file:
        run.count(f"{recipe.name}: item without a vector", count_without_content(written))


def count_without_content(feature_set: FeatureSet) -> int:
    """Return the number of items that are known to have neither image nor text."""
    schema = schemas.features(feature_set.width)
    count = 0
    for path in feature_set.shards:
        flags = io.read_table(path, schema, ["has_image", "has_text"])
        neither = pc.and_(pc.invert(flags["has_image"]), pc.invert(flags["has_text"]))
        count += pc.sum(neither).as_py() or 0
    return count
