"""Reads the outputs of one dataset's stages for a release; a missing stage is left out."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation import evidence
from pipeline.features import released as features
from pipeline.graph import released as graph
from pipeline.items.texts import Texts
from pipeline.layout import Layout, Piece
from pipeline.release import build, chains, language, statement
from pipeline.release.manifest import Input
from pipeline.release.params import Publish
from pipeline.release.parts import Parts
from pipeline.report.outputs import Outputs
from pipeline.run import Run
from pipeline.semantic_ids import released as semantic_ids
from pipeline.train import released as train


def parts(run: Run, stages: Sequence[str]) -> Parts:
    """Collect the content of a dataset's release; UserError if items or all feature sets are absent."""
    layout, params, names = run.layout, _settings(run), _feature_sets(run)
    outputs = Outputs(layout, run.source.kind, stages=stages)
    learned = [layout.encoder.weights, layout.encoder.tokenizer, layout.encoder.whitening, layout.model]
    pieces = [
        *features.pieces(layout, names),
        *graph.pieces(layout, names),
        *semantic_ids.pieces(layout, names, params.semantic_ids),
        *train.pieces(layout, params.users != "none", params.exact_up_to),
        *_evidence(outputs),
    ]
    return Parts(
        outputs=outputs,
        publish=params,
        items=_items(layout, params),
        features={name: io.shards(layout.features(name), "features") for name in names},
        pieces=pieces,
        encoders=chains.gather(run, names),
        vector=statement.vector(outputs.records.get("pretrain"), layout, names),
        inputs=[Input(**{k: row[k] for k in ("name", "bytes", "sha256")}) for row in io.read_json(layout.sources)],
        weights=[Input(name=p.name, bytes=p.stat().st_size, sha256=io.sha256(p)) for p in learned if p.exists()],
        upstream=[p for p in (layout.interactions, layout.items, layout.results) if p.exists()],
    )


def _settings(run: Run) -> Publish:
    """Return section `publish` with what the source's licence and the texts decide in place of null."""
    params, licence = run.params[Publish], run.source.licence
    interactions = licence.interactions if params.interactions is None else params.interactions
    users = params.users or ("names" if interactions else "none")
    if interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers, or publish.interactions"
        )
    spoken = language.detect(Texts(run.layout.items)) if params.language is None else params.language
    decided = {"interactions": interactions, "users": users, "texts": params.texts or licence.texts, "language": spoken}
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


def _evidence(outputs: Outputs) -> Iterator[Piece]:
    if outputs.results is not None:
        yield Piece("results.json", evidence.as_json(outputs.results, outputs.protocols))
    if outputs.probes is not None:
        yield Piece("probes.json", outputs.probes)
    if outputs.study:
        yield Piece("study.json", {part: table.to_pylist() for part, table in outputs.study.items()})


def _items(layout: Layout, params: Publish) -> Iterator[pa.Table]:
    if not any(layout.images.glob("images-*.parquet")):
        yield from (build.released_items(items, None, params) for items in io.read_tables(layout.items, schemas.ITEMS))
        return
    first = 0
    for path in io.shards(layout.images, "images"):
        images = pa.concat_tables(map(_hashed, io.read_tables(path, schemas.IMAGES)))
        items = io.read_rows(layout.items, schemas.ITEMS, schemas.ITEMS.names, first, len(images))
        first += len(images)
        yield build.released_items(items, images, params)


def _hashed(images: pa.Table) -> pa.Table:
    hashes = [build.image_sha256(image.as_py()) for image in images["image"]]
    kept = images.select(["status", "url", "sha256", "phash"]).replace_schema_metadata()
    return kept.append_column("input_image_sha256", pa.array(hashes, pa.string()))
