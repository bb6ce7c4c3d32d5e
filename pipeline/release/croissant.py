"""croissant.json: the release for readers of MLCommons' Croissant, from the manifest's entries.

Format: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.release.manifest import TABLES, File
from pipeline.sources.registry import SOURCES

NAME = "croissant.json"
FORMATS = {".json": "application/json", ".parquet": "application/x-parquet"}
CITATION = (
    "Liu et al. AlignRec: Aligning and Training in Multimodal Recommendations. CIKM 2024. "
    "https://arxiv.org/abs/2403.12384"
)
LINKS = {"cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/"}
"""licences of the Hub's list -> their address"""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
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


def describe(dataset: str, version: str, kind: str, files: Iterable[File]) -> dict[str, Any]:
    """Return the content of croissant.json; `files` are the release's but for card, manifest and this one, in order."""
    header, tables = SOURCES[kind].licence.header, dict[str, list[File]]()
    for file in files:
        if file.table is not None:
            tables.setdefault(record_set(file), []).append(file)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"alignrec-features-{dataset}",
        "description": f"Multimodal item features of the dataset {dataset}, with the item graph and a trained "
        "recommender's embeddings. README.md has the figures, the sources and the known gaps.",
        "version": version,
        "license": header.get("license_link") or LINKS.get(header["license"]) or SOURCES[kind].licence.text,
        "citeAs": CITATION,
        "keywords": ["recommendation", "multimodal", "feature extraction"],
        "distribution": [_file(f) for f in files] + [_file_set(n, fs) for n, fs in tables.items() if len(fs) > 1],
        "recordSet": [_records(name, of_table) for name, of_table in tables.items()],
    }


def record_set(file: File) -> str:
    """Return the name of the record set that a table belongs to; the card's configurations have the same names."""
    kinds = {"features": "features", "features_half": "features-half", "edges": "graph"}
    if file.table == "semantic_ids":
        return f"semantic-ids-{file.feature_set}-{PurePosixPath(file.path).parent.name}"
    if file.table is not None and file.table in kinds:
        return f"{kinds[file.table]}-{file.feature_set}"
    return str(file.table)


def _file(file: File) -> dict[str, Any]:
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
    """Return the width of a table's vectors, as the manifest writes Arrow's types; 1 where there are none."""
    matches = [re.fullmatch(r"fixed_size_list<.*>\[(\d+)\]", c.type) for c in file.columns or []]
    return next((int(f[1]) for f in matches if f), 1)
