"""Collects the outputs of one dataset's stages for a release; a missing stage is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.parameters import Shown
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.encode.registry import ENCODERS
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.evaluation import evidence
from alignrec.pipeline.harness.layout import Layout, Piece
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.release import statement
from alignrec.pipeline.release.encoded import hash_images, text_sha256
from alignrec.pipeline.release.manifest import Input
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.verdict import LINEAR, is_below
from alignrec.pipeline.sources.product import is_web
from alignrec.pipeline.train import retrieval
from alignrec.pipeline.train.params import Released

BEYOND_TITLES = ("brand", "description", "text", "image_url")
LEFT_OUT: dict[Shown, tuple[str, ...]] = {
    "all": (), "titles": BEYOND_TITLES, "none": ("title", *BEYOND_TITLES)
}  # fmt: skip
"""`publish.texts` -> columns that are left empty"""


@dataclass(frozen=True)
class Parts:
    """The content of a release; empty where a dataset has none."""

    outputs: Outputs
    publish: Publish
    """with the defaults of the source in place of null"""
    items: Iterable[pa.Table]
    """schema RELEASED_ITEMS in batches of rows, readable once"""
    features: Mapping[str, list[Path]]
    pieces: list[Piece] = field(default_factory=list)
    encoders: Mapping[str, FeatureSet] = field(default_factory=dict)
    vector: str = ""
    """sentences on the vectors of the encoder trained here"""
    inputs: list[Input] = field(default_factory=list)
    weights: list[Input] = field(default_factory=list)
    upstream: list[Path] = field(default_factory=list)
    """Parquet files of earlier stages whose parameters and versions the manifest records"""


def parts(run: Run, stages: Sequence[str]) -> Parts:
    """Collect the content of a dataset's release; UserError if items or all feature sets are absent."""
    layout, params, names = run.layout, _settings(run), _feature_sets(run)
    outputs = Outputs(layout, run.source.kind, stages=stages)
    # the first is what the card leads with, and what `datasets` loads by default
    if LINEAR in names and is_below(run.params[Released].features, LINEAR, outputs.probes, outputs.tests):
        names = [LINEAR, *(name for name in names if name != LINEAR)]
    features = {name: io.shards(layout.features(name), "features") for name in names}
    learned = [layout.encoder.weights, layout.encoder.tokenizer, layout.encoder.whitening, layout.model]
    pieces = [Piece(f"features/{name}/{path.name}", path, "features") for name in names for path in features[name]]
    for top, table, of in (("graph", "edges", layout.edges), ("semantic_ids", "semantic_ids", layout.codes)):
        pieces += [Piece(f"{top}/{n}/{of(n).name}", of(n), table) for n in names if of(n).exists()]
    pieces += retrieval.pieces(layout, params.users != "none", params.exact_up_to)
    if outputs.results is not None:
        pieces.append(Piece("results.json", evidence.as_json(outputs.results, outputs.protocols)))
    if outputs.probes is not None:
        pieces.append(Piece("probes.json", outputs.probes))
    if outputs.study:
        pieces.append(Piece("study.json", {part: table.to_pylist() for part, table in outputs.study.items()}))
    return Parts(
        outputs=outputs,
        publish=params,
        items=_items(layout, params),
        features=features,
        pieces=pieces,
        encoders=gather_encoders(layout, names),
        vector=statement.describe_vectors(outputs.records.get("pretrain"), layout, names),
        inputs=[Input(**{k: row[k] for k in ("name", "bytes", "sha256")}) for row in io.read_json(layout.sources)],
        weights=[Input(name=p.name, bytes=p.stat().st_size, sha256=io.sha256(p)) for p in learned if p.exists()],
        upstream=[p for p in (layout.interactions, layout.items, layout.results) if p.exists()],
    )


def _settings(run: Run) -> Publish:
    """Return section `publish` with what the source's licence decides in place of null."""
    params, licence = run.params[Publish], run.source.licence
    interactions = licence.interactions if params.interactions is None else params.interactions
    users = params.users or ("names" if interactions else "none")
    if interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers, or publish.interactions"
        )
    decided = {"interactions": interactions, "users": users, "texts": params.texts or licence.texts}
    return params.model_copy(update=decided)


def _feature_sets(run: Run) -> list[str]:
    wanted, encoded = run.params[Publish].features, run.layout.feature_sets()
    names = [name for name in wanted if name in encoded]
    if not names:
        raise UserError(
            f"publish.features ({', '.join(wanted)}): none has been encoded for {run.dataset}; "
            f"there are {', '.join(encoded) or 'no feature sets: run `alignrec encode ' + run.dataset + '` first'}"
        )
    return names


def _items(layout: Layout, params: Publish) -> Iterator[pa.Table]:
    if not any(layout.images.glob("images-*.parquet")):
        yield from (released_items(items, None, params) for items in io.read_tables(layout.items, schemas.ITEMS))
        return
    first = 0
    for path in io.shards(layout.images, "images"):
        images = hash_images(path, ["status", "url", "sha256", "phash"])
        items = io.read_rows(layout.items, schemas.ITEMS, schemas.ITEMS.names, first, len(images))
        first += len(images)
        yield released_items(items, images, params)


def released_items(items: pa.Table, images: pa.Table | None, publish: Publish) -> pa.Table:
    """Return schema RELEASED_ITEMS of n items: public image addresses and hashes are kept, image bytes never.

    `images` has status, url, sha256, phash and input_image_sha256 of the same items; None: none fetched. What
    `publish.texts` leaves out is empty.
    """
    n = len(items)
    blank = pa.array([""] * n, pa.string())
    if images is None:
        addresses = [next(iter(urls or []), "") for urls in items["image_urls"].to_pylist()]
        columns = dict.fromkeys(("sha256", "input_image_sha256"), blank)
        nulls = {"status": pa.nulls(n, pa.string()), "phash": pa.nulls(n, pa.uint64())}
        images = pa.table(columns | nulls | {"url": pa.array(addresses, pa.string())})
    derived = {
        "image_status": images["status"],
        "image_sha256": images["sha256"],
        "image_phash": images["phash"],
        "input_image_sha256": images["input_image_sha256"],
        "image_url": pa.array([a if is_web(a) else "" for a in images["url"].to_pylist()], pa.string()),
        "input_text_sha256": pa.array(map(text_sha256, items["text"].to_pylist()), pa.string()),
    }
    derived |= dict.fromkeys(LEFT_OUT[publish.texts or "all"], blank)
    if publish.texts == "none":
        derived["categories"] = pa.array([[]] * n, schemas.RELEASED_ITEMS.field("categories").type)
    names = schemas.RELEASED_ITEMS.names
    return pa.table({name: derived[name] if name in derived else items[name] for name in names})


def gather_encoders(layout: Layout, names: Sequence[str]) -> dict[str, FeatureSet]:
    """Return the sets whose encoders a release carries: of `names`, their parts, and those that have their weights.

    Third-party models and what is made of them are left to their publishers.
    """
    released: dict[str, FeatureSet] = {}
    for name in names:
        needed = _needed(layout, name)
        if needed and all(map(_is_ours, needed)):
            released |= {one.name: one for one in needed}
    return released


def _needed(layout: Layout, name: str) -> list[FeatureSet]:
    """Return a set after all that its encoder needs."""
    own = FeatureSet.of(layout, name)
    weights = [own.facts.weights] if own.facts.weights not in (None, name) else []
    return [*(one for other in [*own.facts.parts, *filter(None, weights)] for one in _needed(layout, other)), own]


def _is_ours(one: FeatureSet) -> bool:
    """Return whether a release may carry an encoder: no third-party model but in packages, which it names."""
    spec = ENCODERS.get(one.facts.network)
    return one.facts.portable and (spec is None or spec.origin is None)
