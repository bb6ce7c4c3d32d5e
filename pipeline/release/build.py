"""Write a release folder from the outputs of a dataset; outputs of stages that did not run are left out."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.base import Shown
from alignrec.pipeline.encode.folder import SET, FeatureSet
from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.harness import code
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.release import card, croissant, encoder, manifest
from alignrec.pipeline.release.card import Statement
from alignrec.pipeline.release.encoder import hash_images, text_sha256
from alignrec.pipeline.release.manifest import Counts, File, Input, Maker, Manifest
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report import content
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.verdict import LINEAR, is_below
from alignrec.pipeline.sources.base import SOURCES, is_web
from alignrec.pipeline.train.params import Released

ITEMS = "items.parquet"
BEYOND_TITLES = ("brand", "description", "text", "image_url")
LEFT_OUT: dict[Shown, tuple[str, ...]] = {
    "all": (), "titles": BEYOND_TITLES, "none": ("title", *BEYOND_TITLES)
}  # fmt: skip  # publish.texts -> columns to blank


class Piece(NamedTuple):
    """A file of a release."""

    to: str  # path inside the release
    source: Path | Mapping[str, Any]  # file to copy, or content to write as JSON
    table: str = ""  # key of TABLES; empty if it is not a table


@dataclass(frozen=True)
class Parts:
    """Contents of a release; fields are empty where the dataset has no such output."""

    outputs: Outputs
    publish: Publish  # nulls replaced by the defaults of the source
    items: Iterable[pa.Table]  # batches of schema RELEASED_ITEMS; can be iterated once
    features: Mapping[str, list[Path]]
    pieces: list[Piece] = field(default_factory=list)
    encoders: Mapping[str, FeatureSet] = field(default_factory=dict)
    vector: str = ""  # card text about the vectors of the encoder trained in this pipeline
    inputs: list[Input] = field(default_factory=list)
    weights: list[Input] = field(default_factory=list)
    upstream: list[Path] = field(default_factory=list)  # outputs whose parameters the manifest records


def collect_parts(run: Run, stages: Sequence[str]) -> Parts:
    """Collect the contents of a release; UserError if there are no items or no feature set to release."""
    layout, params, names = run.layout, _resolve_settings(run), _released_sets(run)
    outputs = Outputs(layout, run.source.kind, stages=stages)
    # the first set leads the card and is the default config of `datasets.load_dataset`
    if LINEAR in names and is_below(run.params[Released].features, LINEAR, outputs.probes, outputs.tests):
        names = [LINEAR, *(name for name in names if name != LINEAR)]
    features = {name: io.shards(layout.features(name), "features") for name in names}
    learned = [layout.encoder.weights, layout.encoder.tokenizer, layout.encoder.whitening, layout.model]
    pieces = [Piece(f"features/{name}/{path.name}", path, "features") for name in names for path in features[name]]
    pieces += [Piece(f"graph/{name}/edges.parquet", layout.edges(name), "edges") for name in names]
    pieces += [Piece(f"semantic_ids/{name}/codes.parquet", layout.codes(name), "semantic_ids") for name in names]
    users = [Piece("embeddings/users.parquet", layout.user_embeddings, "user_embeddings")]
    pieces += users if params.users != "none" else []
    pieces.append(Piece("embeddings/items.parquet", layout.item_embeddings, "item_embeddings"))
    pieces += [Piece(f"embeddings/{path.name}", path) for path in (layout.items_index, layout.index_facts)]
    # skip the outputs of stages that did not run
    pieces = [piece for piece in pieces if isinstance(piece.source, Path) and piece.source.exists()]
    if outputs.results is not None:
        pieces.append(Piece("results.json", evidence.as_json(outputs.results, outputs.protocols)))
    if outputs.probes is not None:
        pieces.append(Piece("probes.json", outputs.probes))
    if outputs.study:
        pieces.append(Piece("study.json", {part: table.to_pylist() for part, table in outputs.study.items()}))
    return Parts(
        outputs=outputs,
        publish=params,
        items=_read_items(layout, params),
        features=features,
        pieces=pieces,
        encoders=select_encoders(layout, names),
        vector=card.describe_vectors(outputs.records.get("pretrain"), layout, names),
        inputs=[Input(**{k: row[k] for k in ("name", "bytes", "sha256")}) for row in io.read_json(layout.sources)],
        weights=[Input(name=p.name, bytes=p.stat().st_size, sha256=io.sha256(p)) for p in learned if p.exists()],
        upstream=[p for p in (layout.interactions, layout.items, layout.results) if p.exists()],
    )


def _resolve_settings(run: Run) -> Publish:
    """Replace nulls in section `publish` by what the source's licence allows."""
    params, licence = run.params[Publish], run.source.licence
    interactions = licence.interactions if params.interactions is None else params.interactions
    users = params.users or ("names" if interactions else "none")
    if interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers, or publish.interactions"
        )
    decided = {"interactions": interactions, "users": users, "texts": params.texts or licence.texts}
    return params.model_copy(update=decided)


def _released_sets(run: Run) -> list[str]:
    wanted, encoded = run.params[Publish].features, run.layout.feature_sets()
    names = [name for name in wanted if name in encoded]
    if not names:
        raise UserError(
            f"publish.features ({', '.join(wanted)}): none has been encoded for {run.dataset}; "
            f"there are {', '.join(encoded) or 'no feature sets: run `alignrec encode ' + run.dataset + '` first'}"
        )
    return names


def _read_items(layout: Layout, params: Publish) -> Iterator[pa.Table]:
    if not any(layout.images.glob("images-*.parquet")):
        yield from (_release_items(items, None, params) for items in io.read_tables(layout.items, schemas.ITEMS))
        return
    first = 0
    for path in io.shards(layout.images, "images"):
        images = hash_images(path, ["status", "url", "sha256", "phash"])
        items = io.read_rows(layout.items, schemas.ITEMS, schemas.ITEMS.names, first, len(images))
        first += len(images)
        yield _release_items(items, images, params)


def _release_items(items: pa.Table, images: pa.Table | None, publish: Publish) -> pa.Table:
    """Return n items in schema RELEASED_ITEMS, with LEFT_OUT columns blanked; `images`: None if none were fetched."""
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    if images is None:
        addresses = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
        columns = dict.fromkeys(("sha256", "input_image_sha256"), blank)
        nulls = {"status": pa.nulls(n, pa.string()), "phash": pa.nulls(n, pa.uint64())}
        images = pa.table(columns | nulls | {"url": pa.array(addresses, pa.string())})
    derived = {f"image_{name}": images[name] for name in ("status", "sha256", "phash")}
    derived |= {
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array([a if is_web(a) else "" for a in images["url"].to_pylist()], pa.string()),
        "input_text_sha256": pa.array(map(text_sha256, items["text"].to_pylist()), pa.string()),
    }
    derived |= dict.fromkeys(LEFT_OUT[publish.texts or "all"], blank)
    if publish.texts == "none":
        derived["categories"] = pa.array([[]] * n, schemas.RELEASED_ITEMS.field("categories").type)
    names = schemas.RELEASED_ITEMS.names
    return pa.table({name: derived[name] if name in derived else items[name] for name in names})


def select_encoders(layout: Layout, names: Sequence[str]) -> dict[str, FeatureSet]:
    """Select the encoders to release: those of `names` with all dependencies, unless one is a third-party model."""
    released: dict[str, FeatureSet] = {}
    for name in names:
        needed = _with_dependencies(layout, name)
        if all(map(_is_ours, needed)):
            released |= {one.name: one for one in needed}
    return released


def _with_dependencies(layout: Layout, name: str) -> list[FeatureSet]:
    own = FeatureSet.of(layout, name)
    weights = [own.facts.weights] if own.facts.weights not in (None, name) else []
    needed = [*own.facts.parts, *filter(None, weights)]
    return [*(one for other in needed for one in _with_dependencies(layout, other)), own]


def _is_ours(one: FeatureSet) -> bool:
    """Return whether an encoder contains no third-party weights, except those that a package ships."""
    spec = ENCODERS.get(one.facts.network)
    return one.facts.portable and (spec is None or spec.origin is None)


def write_release(folder: Path, parts: Parts, record: Mapping[str, Any]) -> Manifest:
    """Write a release into an empty folder; `record` has stage, parameters and versions of this run."""
    tables = _write_tables(folder, parts, record)
    used_by = _copy_encoders(folder / encoder.FOLDER, parts.encoders)
    files = [manifest.describe_file(folder, p, tables.get(p), used_by.get(p, ())) for p in _list_files(folder)]
    # each of croissant.json, card and manifest lists all files written before it
    said = _state_facts(folder, parts, files, _find_makers([*tables, *parts.upstream]))
    io.write_json(folder / croissant.NAME, croissant.describe_release(said, files))
    files.append(manifest.describe_file(folder, folder / croissant.NAME))
    index = folder / "embeddings/index.json"
    text = card.render_card(
        parts.outputs, said, files,
        vector=parts.vector, encoders=parts.encoders, index=io.read_json(index) if index.exists() else None,
    )  # fmt: skip
    io.write_bytes(folder / "README.md", text.encode())
    files.append(manifest.describe_file(folder, folder / "README.md"))
    written = Manifest(
        format=manifest.FORMAT,
        dataset=said.dataset,
        version=parts.publish.version,
        kind=parts.outputs.kind,
        counts=said.counts,
        files=sorted(files, key=lambda f: f.path),
        inputs=parts.inputs,
        weights=parts.weights,
        encoders=dict(said.networks),
        made_by=dict(said.made_by),
        code=code.fingerprint("alignrec.stages.publish"),
    )
    manifest.write(folder / manifest.NAME, written)
    return written


def _write_tables(folder: Path, parts: Parts, record: Mapping[str, Any]) -> dict[Path, str]:
    io.write_tables(parts.items, folder / ITEMS, schemas.RELEASED_ITEMS, dict(record))
    tables, publish, layout = {folder / ITEMS: "items"}, parts.publish, parts.outputs.layout
    if publish.interactions:
        read = io.read_tables(layout.interactions, schemas.INTERACTIONS)
        _write_table(folder / "interactions.parquet", read, schemas.INTERACTIONS, layout.interactions)
        users = io.read_tables(layout.users, schemas.USERS)
        users = users if publish.users == "names" else map(_number_users, users)
        _write_table(folder / "users.parquet", users, schemas.USERS, layout.users)
        tables |= {folder / f"{name}.parquet": name for name in ("interactions", "users")}
    for piece in parts.pieces:
        target, source, table = folder / piece.to, piece.source, piece.table
        if not isinstance(source, Path):
            io.write_json(target, source)
        # a vector reveals much of a user's history, so names go with it only if the publisher opts in
        elif table == "user_embeddings" and publish.users != "names":
            width = int(pq.read_schema(source).field("vector").type.list_size)
            table, own = "numbered_user_embeddings", schemas.numbered_user_embeddings(width)
            _write_table(target, _read_columns(source, schemas.user_embeddings(width), *own.names), own, source)
        else:
            _copy_file(source, target)
        tables |= {target: table} if table else {}
    return tables


def _write_table(target: Path, tables: Iterator[pa.Table], schema: pa.Schema, source: Path) -> None:
    io.write_tables(tables, target, schema, io.record(source) or None)


def _number_users(users: pa.Table) -> pa.Table:
    number = users["user_id"].cast(pa.string())
    return users.set_column(users.column_names.index("user"), users.schema.field("user"), number)


def _read_columns(path: Path, schema: pa.Schema, *columns: str) -> Iterator[pa.Table]:
    return io.read_slices(path, schema, [*columns], io.PART)


def _copy_file(source: Path, target: Path) -> None:
    with io.atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _copy_encoders(above: Path, encoders: Mapping[str, FeatureSet]) -> dict[Path, list[str]]:
    used_by: dict[Path, list[str]] = {}
    for name, one in encoders.items():
        _copy_file(one.folder / SET, above / name / encoder.NAME)
        for path in _list_files(one.encoder):
            _copy_file(path, above / name / path.relative_to(one.encoder))
        used_by |= {path: [name] for path in _list_files(above / name)}
    # sets can share weights that lie in the folder of one of them: a fetch of one set then needs files of another
    for name, one in encoders.items():
        needed = [path for part in one.facts.parts for path in _list_files(above / part)]
        weights = _list_files(above / one.facts.weights) if one.facts.weights else []
        for path in [*needed, *(path for path in weights if path.name != encoder.NAME)]:
            used_by[path] += [name] * (name not in used_by[path])
    return used_by


def _list_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _find_makers(paths: list[Path]) -> dict[str, Maker]:
    by_stage: dict[str, Maker] = {}
    for path in paths:
        if record := io.record(path):
            source = code.fingerprint(f"alignrec.stages.{record['stage']}")
            by_stage[record["stage"]] = Maker(params=record["params"], versions=record["versions"], code=source)
    return dict(sorted(by_stage.items()))


def _state_facts(folder: Path, parts: Parts, files: list[File], made_by: dict[str, Maker]) -> Statement:
    outputs, layout = parts.outputs, parts.outputs.layout
    states = content.count_states(_read_columns(folder / ITEMS, schemas.RELEASED_ITEMS, "image_status", "text_status"))
    users, interactions = (io.rows([path]) for path in (layout.users, layout.interactions))
    counts = Counts(users=users, items=states.total(), interactions=interactions)
    divided = _read_columns(layout.interactions, schemas.INTERACTIONS, "item_id", "split")
    return Statement(
        publish=parts.publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=layout.dataset,
        counts=counts,
        lacking=content.count_incomplete(states),
        gaps=content.gap_rows(states),
        coverage=content.coverage_rows(parts.features),
        hardware=content.describe_hardware(outputs.records),
        head=card.popular_share(divided, counts.items),
        learned=[name for name in (outputs.probes or {}).get("learned", ()) if name in parts.features],
        networks=card.find_networks(parts.features),
        tables={file.table for file in files},
        inputs=parts.inputs,
        made_by=made_by,
    )
