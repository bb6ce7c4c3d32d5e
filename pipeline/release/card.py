"""Render README.md of a release, its dataset card."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from alignrec.pipeline.release.facts import CARD_TEMPLATES, ReleaseFacts
from alignrec.pipeline.release.manifest import Encoder, File, record_sets
from alignrec.pipeline.release.table_kinds import TABLES
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.page import render_evidence
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
        is_benchmarked=bool(outputs.compared),
        is_probed=outputs.probes is not None,
        advice=escape_markdown(" ".join(advise(outputs))),
        evidence=render_evidence(outputs),
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
        config: dict[str, Any] = {
            "config_name": name,
            "data_files": [{"split": "train", "path": paths}],
        }
        if name == f"features-{first}":
            config["default"] = True
        configs.append(config)

    block: dict[str, Any] = {
        "pretty_name": f"alignrec features: {facts.dataset}",
        **facts.licence_header,
    }
    if facts.publish.language:
        block["language"] = facts.publish.language
    block["task_categories"] = ["feature-extraction"]
    # the Hub's `library_name` is of models; a dataset names its library by a tag
    block["tags"] = ["recommendation", "multimodal", "feature-extraction", "alignrec"]
    block["size_categories"] = [size]
    block["configs"] = configs
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()
