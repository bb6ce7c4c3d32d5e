"""Write README.md of a release, its dataset card, and croissant.json.

Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and
croissant-rai-spec.html.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.release.facts import CARD_TEMPLATES, ReleaseFacts
from alignrec.pipeline.release.manifest import Encoder, File, record_sets
from alignrec.pipeline.release.params import Publish, VectorType
from alignrec.pipeline.release.table_kinds import TABLES
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import escape_markdown, markdown
from alignrec.pipeline.report.verdict import advise

SIZE_CATEGORIES = {  # items below -> category on the Hub
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
}
LARGEST_SIZE = "1M<n<10M"
DESCRIPTIONS = {  # of files without a table
    "embeddings/items.faiss": "FAISS index of the item vectors, by inner product; row = item_id",
    "embeddings/index.json": "facts of the index, and its recall",
    "results.json": "benchmark figures by seed, and the settings tried for each model",
    "probes.json": "feature sets judged before training",
    "study.json": "mask modality, the long tail, variants of pre-training, sweeps: every row",
    "croissant.json": "this release for readers of MLCommons' Croissant",
}
CROISSANT = "croissant.json"
CONTEXT = Path(__file__).with_name("croissant_context.json")
PARQUET_FORMAT = "application/x-parquet"
MEDIA_TYPES = {".json": "application/json", ".parquet": PARQUET_FORMAT}
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
DATA_TYPES = {
    pa.types.is_boolean: "sc:Boolean",
    pa.types.is_integer: "sc:Integer",
    pa.types.is_floating: "sc:Float",
}
MADE = (
    "Made by the open pipeline alignrec; manifest.json has the parameters, versions and code of "
    "every stage."
)

Node = dict[str, Any]  # of JSON-LD


def render_card(
    outputs: Outputs,
    facts: ReleaseFacts,
    files: list[File],
    encoders: Iterable[str],
    index: Mapping[str, Any] | None,
) -> str:
    """Render README.md.

    `encoders` are the sets whose encoder is released, `index` the facts of the FAISS index.
    """
    first = facts.coverage[0]
    released = {name for name, *_ in facts.coverage}
    quality = read_json(outputs.layout.code_quality, {})
    coded = {name: figures for name, figures in quality.items() if name in released}
    processed = (outputs.probes or {}).get("processed")
    studied = [
        *results.tuning_tables(outputs.tuning),
        *results.semantic_id_tables(coded),
        *results.mask_tables(outputs.study),
        *results.lead_tables(outputs.study),
    ]
    advice = escape_markdown(" ".join(advise(outputs)))
    return CARD_TEMPLATES.get_template("card.md").render(
        facts=facts,
        header=_metadata_block(facts, first[0], files),
        files=[_file_row(file) for file in files],
        inputs=[[raw.name, f"{raw.bytes:,}", f"`{raw.sha256}`"] for raw in facts.inputs],
        first=first,
        coverage=[[f"`{name}`", *shares] for name, *shares in facts.coverage],
        networks=network_rows(facts.networks),
        encoders=[*encoders],
        index=index,
        comparisons=outputs.compared,
        recommenders=results.results_table,
        probed=list(probes.read_probes(outputs.probes).values()),
        advice=advice,
        headline=probes.headline_table(outputs.probes),
        processed=probes.describe_processing(processed) if processed else "",
        studied=studied,
        markdown=markdown,
    )


def _file_row(file: File) -> list[str]:
    description = DESCRIPTIONS.get(file.path, "")
    if file.used_by:
        description = f"encoder of {', '.join(file.used_by)}"
    elif file.table is not None:
        description = TABLES[file.table].description
    return [f"`{file.path}`", "" if file.rows is None else f"{file.rows:,}", description]


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return a row per third-party model; a set made of several precedes its parts."""
    rows: list[list[Any]] = []
    for name, encoder in encoders.items():
        if encoder.model or encoder.parts:
            rows.append(_network_row(name, encoder))
        rows += network_rows({f"{name}: {part.name}": part for part in encoder.parts})
    return rows


def _network_row(name: str, encoder: Encoder) -> list[Any]:
    return [
        name,
        encoder.kind,
        encoder.model or f"{len(encoder.parts)} parts",
        encoder.revision,
        encoder.library,
        encoder.licence,
        ", ".join(encoder.modalities),
        encoder.prompt,
        encoder.trained_on,
        encoder.dim or "",
    ]


def _metadata_block(facts: ReleaseFacts, first: str, files: list[File]) -> str:
    size = next(
        (name for limit, name in SIZE_CATEGORIES.items() if facts.counts.items < limit),
        LARGEST_SIZE,
    )
    configs = []
    for name, table_files in record_sets(files).items():
        paths = [file.path for file in table_files]
        config: Node = {"config_name": name, "data_files": [{"split": "train", "path": paths}]}
        if name == f"features-{first}":
            config["default"] = True
        configs.append(config)

    block: Node = {"pretty_name": f"alignrec features: {facts.dataset}", **facts.licence_header}
    if facts.publish.language:
        block["language"] = facts.publish.language
    block["task_categories"] = ["feature-extraction"]
    # the Hub's `library_name` is of models; a dataset names its library by a tag
    block["tags"] = ["recommendation", "multimodal", "feature-extraction", "alignrec"]
    block["size_categories"] = [size]
    block["configs"] = configs
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()


def make_croissant(facts: ReleaseFacts, files: list[File]) -> Node:
    publish = facts.publish
    tables = record_sets(files)
    return {
        "@context": io.read_json(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS,
        "name": f"alignrec-features-{facts.dataset}",
        "description": f"Multimodal item features of the dataset {facts.dataset}, with the item "
        "graph and a trained recommender's embeddings. README.md has the figures, the sources and "
        "the known gaps.",
        "version": publish.version,
        **_describe_publication(publish),
        "license": facts.licence_text,
        **_describe_usage(facts),
        "citeAs": facts.render_topic("citation"),
        "keywords": ["recommendation", "multimodal", "feature extraction"],
        "rai:dataLimitations": facts.render_topic("limitations").splitlines(),
        "rai:dataBiases": facts.render_topic("biases").splitlines(),
        "rai:personalSensitiveInformation": facts.render_topic("personal").splitlines(),
        "rai:dataUseCases": facts.render_topic("uses").splitlines(),
        "rai:dataSocialImpact": facts.render_topic("impact"),
        "rai:hasSyntheticData": bool(facts.licence.synthetic),
        "prov:wasDerivedFrom": _list_inputs(facts),
        "prov:wasGeneratedBy": _list_activities(facts),
        "distribution": [*map(_file_object, files), *_list_file_sets(tables)],
        "recordSet": [
            _record_set(name, table_files, publish.vectors) for name, table_files in tables.items()
        ],
    }


def _describe_publication(publish: Publish) -> Node:
    # a creator may also be a person
    creators = [{"@type": "sc:Organization", "name": name} for name in publish.creator or ()]
    keys = {
        "url": publish.url,
        "creator": creators,
        "datePublished": publish.date and publish.date.isoformat(),
    }
    return {key: value for key, value in keys.items() if value}


def _describe_usage(facts: ReleaseFacts) -> Node:
    """Return the source's terms if no licence is known."""
    is_known = facts.licence.header["license"] not in ("unknown", "other")
    if is_known or facts.publish.licence is not None:
        return {}
    return {"usageInfo": facts.render_topic("terms")}


def _list_inputs(facts: ReleaseFacts) -> list[Node]:
    terms = facts.licence.address or facts.licence.text
    return [
        {"@type": "prov:Entity", "name": raw.name, "sha256": raw.sha256, "license": terms}
        for raw in facts.inputs
    ]


def _list_activities(facts: ReleaseFacts) -> list[Node]:
    activity = {"@type": "prov:Activity"}
    return [activity | {"name": stage, "description": MADE} for stage in facts.made_by]


def _file_object(file: File) -> Node:
    suffix = PurePosixPath(file.path).suffix
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": MEDIA_TYPES.get(suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _list_file_sets(tables: Mapping[str, list[File]]) -> Iterator[Node]:
    for name, files in tables.items():
        if len(files) > 1:
            yield {
                "@type": "cr:FileSet",
                "@id": f"{name}-files",
                "name": f"{name}-files",
                "encodingFormat": PARQUET_FORMAT,
                "includes": [file.path for file in files],
            }


def _record_set(name: str, files: list[File], stored: VectorType) -> Node:
    source: Node = {"fileObject": {"@id": files[0].path}}
    if len(files) > 1:
        source = {"fileSet": {"@id": f"{name}-files"}}
    schema = TABLES[str(files[0].table)].schema(files[0].width)
    if files[0].table == "features":
        schema = schemas.store_as(schema, stored)
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{sum(file.rows or 0 for file in files)} rows",
        "field": [_describe_field(name, field, source) for field in schema],
    }


def _describe_field(record_set: str, field: pa.Field, source: Node) -> Node:
    shape: Node = {}
    value_type = field.type
    if pa.types.is_fixed_size_list(field.type):
        value_type = field.type.value_type
        shape = {"isArray": True, "arrayShape": str(field.type.list_size)}
    elif pa.types.is_list(field.type):
        value_type = field.type.value_type
        shape = {"isArray": True, "arrayShape": "-1"}  # any length

    data_types = (name for matches, name in DATA_TYPES.items() if matches(value_type))
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{field.name}",
        "name": field.name,
        "description": (field.metadata or {}).get(b"doc", b"").decode(),
        "dataType": next(data_types, "sc:Text"),
        **shape,
        "source": source | {"extract": {"column": field.name}},
    }
