"""croissant.json, see https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and croissant-rai-spec.html."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.release import contents
from alignrec.pipeline.release.card import Statement
from alignrec.pipeline.release.manifest import File, record_sets

NAME = "croissant.json"
CONTEXT = Path(__file__).with_name("croissant_context.json")
FORMATS = {".json": "application/json", ".parquet": "application/x-parquet"}
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]


def describe_release(said: Statement, files: list[File]) -> dict[str, Any]:
    publish, dataset = said.publish, said.dataset
    is_unlicensed = publish.licence is None and said.licence.header["license"] in ("unknown", "other")
    creators = [{"@type": "sc:Organization", "name": name} for name in publish.creator or ()]  # may also be a person
    published = {"url": publish.url, "creator": creators, "datePublished": publish.date and publish.date.isoformat()}
    terms = said.licence.address or said.licence.text
    made = "Made by the open pipeline alignrec; manifest.json has the parameters, versions and code of every stage."
    tables = record_sets(files)
    return {
        "@context": io.read_json(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS,
        "name": f"alignrec-features-{dataset}",
        "description": f"Multimodal item features of the dataset {dataset}, with the item graph and a trained "
        "recommender's embeddings. README.md has the figures, the sources and the known gaps.",
        "version": publish.version,
        **{key: value for key, value in published.items() if value},
        "license": said.licence_text,
        **({"usageInfo": said.render_topic("terms")} if is_unlicensed else {}),
        "citeAs": said.render_topic("citation"),
        "keywords": ["recommendation", "multimodal", "feature extraction"],
        "rai:dataLimitations": said.list_sentences("limitations"),
        "rai:dataBiases": said.list_sentences("biases"),
        "rai:personalSensitiveInformation": said.list_sentences("personal"),
        "rai:dataUseCases": said.list_sentences("uses"),
        "rai:dataSocialImpact": said.render_topic("impact"),
        "rai:hasSyntheticData": bool(said.licence.synthetic),
        "prov:wasDerivedFrom": [
            {"@type": "prov:Entity", "name": raw.name, "sha256": raw.sha256, "license": terms} for raw in said.inputs
        ],
        "prov:wasGeneratedBy": [
            {"@type": "prov:Activity", "name": stage, "description": made} for stage in said.made_by
        ],
        "distribution": [
            *map(_file_object, files),
            *(_file_set(name, of_table) for name, of_table in tables.items() if len(of_table) > 1),
        ],
        "recordSet": [_record_set(name, of_table) for name, of_table in tables.items()],
    }


def _file_object(file: File) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": FORMATS.get(PurePosixPath(file.path).suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _file_set(name: str, files: list[File]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "encodingFormat": FORMATS[".parquet"],
        "includes": [f.path for f in files],
    }


def _record_set(name: str, files: list[File]) -> dict[str, Any]:
    source = {"fileSet": {"@id": f"{name}-files"}} if len(files) > 1 else {"fileObject": {"@id": files[0].path}}
    lists = [re.fullmatch(r"fixed_size_list<.*>\[(\d+)\]", column.type) for column in files[0].columns or []]
    width = next((int(found[1]) for found in lists if found), 1)
    schema = contents.TABLES[str(files[0].table)].schema
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{sum(f.rows or 0 for f in files)} rows",
        "field": [_describe_field(name, f, source) for f in schema(width)] if schema else [],
    }


def _describe_field(records: str, field: pa.Field, source: dict[str, Any]) -> dict[str, Any]:
    array, kind = None, field.type
    if pa.types.is_fixed_size_list(kind):
        array, kind = str(kind.list_size), kind.value_type
    elif pa.types.is_list(kind):
        array, kind = "-1", kind.value_type  # any length
    types = {pa.types.is_boolean: "sc:Boolean", pa.types.is_integer: "sc:Integer", pa.types.is_floating: "sc:Float"}
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{field.name}",
        "name": field.name,
        "description": (field.metadata or {}).get(b"doc", b"").decode(),
        "dataType": next((name for matches, name in types.items() if matches(kind)), "sc:Text"),
        **({} if array is None else {"isArray": True, "arrayShape": array}),
        "source": source | {"extract": {"column": field.name}},
    }
