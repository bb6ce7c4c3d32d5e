"""The dataset card: README.md of a release, with the metadata block that the Hugging Face Hub reads."""

from collections.abc import Mapping
from typing import Any

import yaml

from alignrec.pipeline.evaluation.evidence import candidates, masked_splits
from alignrec.pipeline.release import contents
from alignrec.pipeline.release.gather import Parts
from alignrec.pipeline.release.manifest import Encoder, File, record_sets
from alignrec.pipeline.release.statement import TEMPLATES, Statement
from alignrec.pipeline.report import content, probes, recommenders, study
from alignrec.pipeline.report.table import markdown

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render(parts: Parts, said: Statement, states: content.States, files: list[File]) -> str:
    """Return the text of README.md; `files` are all others but the manifest."""
    outputs, coverage = parts.outputs, content.coverage(parts.features)
    coded = {name: figures for name, figures in outputs.coded.items() if name in parts.features}
    processed = (outputs.probes or {}).get("processed")
    return TEMPLATES.get_template("card.md").render(
        parts=parts,
        said=said,
        outputs=outputs,
        index=next((piece.source for piece in parts.pieces if piece.to == "embeddings/index.json"), None),
        header=_header(parts, said, coverage[0][0], files),
        files=[
            [f"`{f.path}`", "" if f.rows is None else f"{f.rows:,}", contents.description(f.path, f.table, f.used_by)]
            for f in files
        ],
        inputs=[[i.name, f"{i.bytes:,}", f"`{i.sha256}`"] for i in parts.inputs],
        with_interactions="interactions" in said.tables,
        first=coverage[0],
        coverage=[[f"`{name}`", *shares] for name, *shares in coverage],
        networks=network_rows(said.networks),
        candidates=candidates,
        masked_splits=masked_splits,
        recommenders=recommenders.results,
        probed=list(probes.read(outputs.probes).values()),
        headline=probes.headline(outputs.probes),
        processed=probes.processing(processed) if processed else "",
        studied=[*study.semantic_ids(coded), *study.summed(outputs.study)],
        hardware=content.hardware(outputs.records),
        gaps=content.gaps(states),
        markdown=markdown,
    )


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return rows of feature set, kind, model, revision, library, modalities, prompt, width; parts below."""
    table: list[list[Any]] = []
    for name, one in encoders.items():
        modalities = ", ".join(one.modalities)
        table.append([name, one.kind, one.model, one.revision, one.library, modalities, one.prompt, one.dim or ""])
        table += network_rows({f"{name}: {part.name}": part for part in one.parts})
    return table


def _header(parts: Parts, said: Statement, first: str, files: list[File]) -> str:
    """Return the YAML block, with a config per table as `datasets.load_dataset` names them, by default `first`."""
    block = {
        "pretty_name": f"alignrec features: {said.dataset}",
        **said.header,
        **({"language": parts.publish.language} if parts.publish.language else {}),
        "tags": ["recommendation", "multimodal", "feature-extraction", "alignrec"],
        "size_categories": [next((name for limit, name in SIZES if said.counts.items < limit), "1M<n<10M")],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": [file.path for file in of_table]}]}
            | ({"default": True} if name == f"features-{first}" else {})
            for name, of_table in record_sets(files).items()
        ],
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()
