"""Make croissant.json of a release.

Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and
croissant-rai-spec.html.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.release.facts import ReleaseFacts
from alignrec.pipeline.release.manifest import File, record_sets
from alignrec.pipeline.release.params import Publish, VectorType
from alignrec.pipeline.release.table_kinds import TABLES

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
