"""Write README.md of a release, its dataset card, and croissant.json.

Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and croissant-rai-spec.html.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.release.facts import TEMPLATES, Statement
from alignrec.pipeline.release.manifest import TABLES, Encoder, File, record_sets
from alignrec.pipeline.report import probes, results
from alignrec.pipeline.report.outputs import Outputs, read_json
from alignrec.pipeline.report.table import markdown

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
OTHERS = {
    "embeddings/items.faiss": "FAISS index of the item vectors, by inner product; row = item_id",
    "embeddings/index.json": "facts of the index, and its recall",
    "results.json": "benchmark figures by seed",
    "probes.json": "feature sets judged before training",
    "study.json": "mask modality, the long tail, variants of pre-training, sweeps: every row",
    "croissant.json": "this release for readers of MLCommons' Croissant",
}
CROISSANT = "croissant.json"
CONTEXT = Path(__file__).with_name("croissant_context.json")
FORMATS = {".json": "application/json", ".parquet": "application/x-parquet"}
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]


def render_card(
    outputs: Outputs,
    said: Statement,
    files: list[File],
    encoders: Iterable[str],
    index: Mapping[str, Any] | None,
) -> str:
    """Render README.md; `encoders` are the sets whose encoder is released, `index` the facts of the FAISS index."""
    first, *_ = said.coverage
    names = {name for name, *_ in said.coverage}
    coded = {
        name: figures
        for name, figures in read_json(outputs.layout.code_quality, {}).items()
        if name in names
    }
    processed = (outputs.probes or {}).get("processed")
    return TEMPLATES.get_template("card.md").render(
        said=said,
        outputs=outputs,
        header=_metadata_block(said, first[0], files),
        files=[
            [
                f"`{f.path}`",
                "" if f.rows is None else f"{f.rows:,}",
                _describe_file(f.path, f.table, f.used_by),
            ]
            for f in files
        ],
        inputs=[[i.name, f"{i.bytes:,}", f"`{i.sha256}`"] for i in said.inputs],
        first=first,
        coverage=[[f"`{name}`", *shares] for name, *shares in said.coverage],
        networks=network_rows(said.networks),
        encoders=[*encoders],
        index=index,
        recommenders=results.results_table,
        probed=list(probes.read_probes(outputs.probes).values()),
        headline=probes.headline_table(outputs.probes),
        processed=probes.describe_processing(processed) if processed else "",
        studied=[
            *results.semantic_id_tables(coded),
            *results.mask_tables(outputs.study),
            *results.lead_tables(outputs.study),
        ],
        markdown=markdown,
    )


def _describe_file(path: str, table: str | None, used_by: list[str]) -> str:
    if used_by:
        return f"encoder of {', '.join(used_by)}"
    return OTHERS.get(path, "") if table is None else TABLES[table].description


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return a row per third-party model; the row of a set made of several models precedes those of its parts."""
    table: list[list[Any]] = []
    for name, one in encoders.items():
        made_of = one.model or f"{len(one.parts)} parts"
        source = [made_of, one.revision, one.library, one.licence]
        if one.model or one.parts:
            table.append(
                [name, one.kind, *source, ", ".join(one.modalities), one.prompt, one.dim or ""]
            )
        table += network_rows({f"{name}: {part.name}": part for part in one.parts})
    return table


def _metadata_block(said: Statement, first: str, files: list[File]) -> str:
    block = {
        "pretty_name": f"alignrec features: {said.dataset}",
        **said.licence_header,
        **({"language": said.publish.language} if said.publish.language else {}),
        "tags": ["recommendation", "multimodal", "feature-extraction", "alignrec"],
        "size_categories": [
            next((name for limit, name in SIZES if said.counts.items < limit), "1M<n<10M")
        ],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": [file.path for file in of_table]}],
            }
            | ({"default": True} if name == f"features-{first}" else {})
            for name, of_table in record_sets(files).items()
        ],
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()


def croissant(said: Statement, files: list[File]) -> dict[str, Any]:
    publish, dataset = said.publish, said.dataset
    is_unlicensed = publish.licence is None and said.licence.header["license"] in (
        "unknown",
        "other",
    )
    creators = [
        {"@type": "sc:Organization", "name": name} for name in publish.creator or ()
    ]  # may also be a person
    published = {
        "url": publish.url,
        "creator": creators,
        "datePublished": publish.date and publish.date.isoformat(),
    }
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
        "rai:dataLimitations": said.render_topic("limitations").splitlines(),
        "rai:dataBiases": said.render_topic("biases").splitlines(),
        "rai:personalSensitiveInformation": said.render_topic("personal").splitlines(),
        "rai:dataUseCases": said.render_topic("uses").splitlines(),
        "rai:dataSocialImpact": said.render_topic("impact"),
        "rai:hasSyntheticData": bool(said.licence.synthetic),
        "prov:wasDerivedFrom": [
            {"@type": "prov:Entity", "name": raw.name, "sha256": raw.sha256, "license": terms}
            for raw in said.inputs
        ],
        "prov:wasGeneratedBy": [
            {"@type": "prov:Activity", "name": stage, "description": made} for stage in said.made_by
        ],
        "distribution": [*_list_distribution(files, tables)],
        "recordSet": [_record_set(name, of_table) for name, of_table in tables.items()],
    }


def _list_distribution(
    files: list[File], tables: Mapping[str, list[File]]
) -> Iterator[dict[str, Any]]:
    for file in files:
        yield {
            "@type": "cr:FileObject",
            **dict.fromkeys(("@id", "name", "contentUrl"), file.path),
            "contentSize": f"{file.bytes} B",
            "encodingFormat": FORMATS.get(
                PurePosixPath(file.path).suffix, "application/octet-stream"
            ),
            "sha256": file.sha256,
        }
    for name, parts in tables.items():
        if len(parts) > 1:
            named = dict.fromkeys(("@id", "name"), f"{name}-files")
            included = {
                "encodingFormat": FORMATS[".parquet"],
                "includes": [part.path for part in parts],
            }
            yield {"@type": "cr:FileSet"} | named | included


def _record_set(name: str, files: list[File]) -> dict[str, Any]:
    source = (
        {"fileSet": {"@id": f"{name}-files"}}
        if len(files) > 1
        else {"fileObject": {"@id": files[0].path}}
    )
    lists = [
        re.fullmatch(r"fixed_size_list<.*>\[(\d+)\]", column.type)
        for column in files[0].columns or []
    ]
    width = next((int(found[1]) for found in lists if found), 1)
    schema = TABLES[str(files[0].table)].schema
    types = {
        pa.types.is_boolean: "sc:Boolean",
        pa.types.is_integer: "sc:Integer",
        pa.types.is_floating: "sc:Float",
    }
    fields: list[dict[str, Any]] = []
    for field in schema(width) if schema else ():
        array, kind = None, field.type
        if pa.types.is_fixed_size_list(kind):
            array, kind = str(kind.list_size), kind.value_type
        elif pa.types.is_list(kind):
            array, kind = "-1", kind.value_type  # any length
        fields.append({
            "@type": "cr:Field",
            "@id": f"{name}/{field.name}",
            "name": field.name,
            "description": (field.metadata or {}).get(b"doc", b"").decode(),
            "dataType": next((type for matches, type in types.items() if matches(kind)), "sc:Text"),
            **({} if array is None else {"isArray": True, "arrayShape": array}),
            "source": source | {"extract": {"column": field.name}},
        })  # fmt: skip
    rows = f"{sum(f.rows or 0 for f in files)} rows"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": rows,
        "field": fields,
    }
