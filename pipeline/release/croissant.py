"""croissant.json: the release for readers of MLCommons' Croissant, from the manifest's entries.

Format: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html; the terms of reviewers:
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from pipeline.release.manifest import TABLES, File
from pipeline.release.params import Publish
from pipeline.release.statement import IMPACT, USES, Statement

NAME = "croissant.json"
FORMATS = {".json": "application/json", ".parquet": "application/x-parquet"}
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
HUB = "https://huggingface.co"
TARGET = re.compile(r"hf://datasets/(?P<owner>[^/]+)/(?P<name>[^/@]+)(@(?P<revision>[^/]+))?(/(?P<prefix>.+?))?/?")
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "prov": "http://www.w3.org/ns/prov#",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
} | {
    term: f"cr:{term}"
    for term in (
        "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
        "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
        "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
        "source", "subField", "transform",
    )
}  # fmt: skip


def describe(statement: Statement, files: Iterable[File]) -> dict[str, Any]:
    files, publish, dataset = list(files), statement.publish, statement.dataset
    base = folder(publish.url, dataset, publish.version) if publish.url else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS,
        "name": f"alignrec-features-{dataset}",
        "description": f"Multimodal item features of the dataset {dataset}, with the item graph and a trained "
        "recommender's embeddings. README.md has the figures, the sources and the known gaps.",
        "version": publish.version,
        **_published(publish),
        "license": statement.licensed,
        **({"usageInfo": statement.terms} if statement.is_unknown else {}),
        "citeAs": statement.citation,
        "keywords": ["recommendation", "multimodal", "feature extraction"],
        **_responsible(statement),
        **contents(files, base),
    }


def contents(files: Iterable[File], base: str) -> dict[str, Any]:
    """Return `distribution` and `recordSet`, with addresses below `base`, or relative ones if it is empty.

    With absolute addresses each file of a table is a record set, as mlcroissant 1.1 concatenates only local files.
    """
    tables = dict[str, list[File]]()
    for file in files:
        if file.table is not None:
            tables.setdefault(record_set(file), []).append(file)
    if base:
        tables = {
            name if len(of_table) == 1 else f"{name}-{number:05d}": [file]
            for name, of_table in tables.items()
            for number, file in enumerate(of_table)
        }
    sets = [_file_set(name, of_table) for name, of_table in tables.items() if len(of_table) > 1]
    return {
        "distribution": [_file(f, base) for f in files] + sets,
        "recordSet": [_records(name, of_table) for name, of_table in tables.items()],
    }


def folder(url: str, dataset: str, version: str, hub: str = HUB) -> str:
    """Return the web address of a release's folder, which ends in /, from `publish.url`."""
    place = f"{dataset}/{version}/"
    if not (found := TARGET.fullmatch(url)):
        return f"{url.rstrip('/')}/{place}"
    prefix = f"{found['prefix']}/" if found["prefix"] else ""
    revision = quote(found["revision"] or "main", safe="")
    return f"{hub}/datasets/{found['owner']}/{found['name']}/resolve/{revision}/{quote(prefix + place)}"


def page(url: str, hub: str = HUB) -> str:
    found = TARGET.fullmatch(url)
    return f"{hub}/datasets/{found['owner']}/{found['name']}" if found else url


def readdressed(described: Mapping[str, Any], files: Iterable[File], base: str, url: str) -> dict[str, Any]:
    listed = {one["@id"] for one in described["distribution"]}
    return {"url": url, **described} | contents([file for file in files if file.path in listed], base)


def is_absolute(described: Mapping[str, Any]) -> bool:
    addresses = [str(one["contentUrl"]) for one in described["distribution"] if "contentUrl" in one]
    return all(address.startswith(("http://", "https://")) for address in addresses)


def _published(publish: Publish) -> dict[str, Any]:
    kind = "sc:Organization"  # a name does not show whether it is a person's
    creators = [{"@type": kind, "name": name} for name in publish.creator or ()]
    url = publish.url and page(publish.url)
    stated = {"url": url, "creator": creators, "datePublished": publish.date}
    return {key: value for key, value in stated.items() if value}


def _responsible(statement: Statement) -> dict[str, Any]:
    terms = statement.licence.address or statement.licence.text
    made = "Made by the open pipeline alignrec; manifest.json has the parameters, versions and code of every stage."
    return {
        "rai:dataLimitations": statement.limitations,
        "rai:dataBiases": statement.biases,
        "rai:personalSensitiveInformation": statement.personal,
        "rai:dataUseCases": USES,
        "rai:dataSocialImpact": IMPACT,
        "rai:hasSyntheticData": bool(statement.licence.synthetic),
        "prov:wasDerivedFrom": [
            {"@type": "prov:Entity", "name": raw.name, "sha256": raw.sha256, "license": terms}
            for raw in statement.inputs
        ],
        "prov:wasGeneratedBy": [
            {"@type": "prov:Activity", "name": stage, "description": made} for stage in statement.stages
        ],
    }


def record_set(file: File) -> str:
    kinds = {"features": "features", "features_half": "features-half", "edges": "graph", "tried": "tried"}
    if file.table == "semantic_ids":
        return f"semantic-ids-{file.feature_set}-{PurePosixPath(file.path).parent.name}"
    return f"{kinds[file.table]}-{file.feature_set}" if file.table in kinds else str(file.table)


def _file(file: File, base: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": base + quote(file.path) if base else file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": FORMATS.get(PurePosixPath(file.path).suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _file_set(name: str, files: list[File]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "encodingFormat": "application/x-parquet",
        "includes": [f.path for f in files],
    }


def _records(name: str, files: list[File]) -> dict[str, Any]:
    source = {"fileSet": {"@id": f"{name}-files"}} if len(files) > 1 else {"fileObject": {"@id": files[0].path}}
    schema = TABLES[str(files[0].table)](_width(files[0]))
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{sum(f.rows or 0 for f in files)} rows",
        "field": [_field(name, f, source) for f in schema],
    }


def _field(records: str, field: pa.Field, source: dict[str, Any]) -> dict[str, Any]:
    array, kind = None, field.type
    if pa.types.is_fixed_size_list(kind):
        array, kind = str(kind.list_size), kind.value_type
    elif pa.types.is_list(kind):
        array, kind = "-1", kind.value_type  # of any length
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{field.name}",
        "name": field.name,
        "description": (field.metadata or {}).get(b"doc", b"").decode(),
        "dataType": _type(kind),
        **({} if array is None else {"isArray": True, "arrayShape": array}),
        "source": source | {"extract": {"column": field.name}},
    }


def _type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _width(file: File) -> int:
    matches = [re.fullmatch(r"fixed_size_list<.*>\[(\d+)\]", c.type) for c in file.columns or []]
    return next((int(f[1]) for f in matches if f), 1)
