"""The dataset card: README.md of a release, with the metadata block that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import yaml

from pipeline.evaluation.evidence import HEADLINE, Comparison, candidates, masked_splits
from pipeline.probe.registry import PROBES
from pipeline.release import croissant
from pipeline.release.manifest import USER_VECTORS, Counts, File, Input
from pipeline.report import markdown
from pipeline.report.tables import Table
from pipeline.sources.registry import SOURCES

WHAT = {
    "items": "text, and status, address and hash of the image; hashes of what was encoded",
    "interactions": "who bought what, with the split",
    "users": "identifiers of the users",
    "features": "one vector an item",
    "features_half": "the same in float16",
    "edges": "nearest items by cosine, itself first",
    "item_embeddings": "the trained recommender's item vectors",
    "user_embeddings": "the trained recommender's user vectors; score = dot product",
    "numbered_user_embeddings": "the trained recommender's user vectors, by number; score = dot product",
    "semantic_ids": "an item as a few discrete codes",
    "codebooks.safetensors": "codebooks of the semantic IDs",
    "codes.json": "how the semantic IDs were made, and how good they are",
    "embeddings/items.faiss": "FAISS index of the item vectors, by inner product; row = item_id",
    "embeddings/index.json": "facts of the index, and its recall",
    "results.json": "benchmark figures by seed",
    "probes.json": "feature sets judged before training",
    "study.json": "mask modality, the long tail, arms of pre-training, sweeps: every row",
    "croissant.json": "this release for readers of MLCommons' Croissant",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class Facts:
    """The variables of the card's template."""

    dataset: str
    """name in the parameters"""
    version: str
    """semantic version of the data"""
    kind: str
    """of the source, a name in SOURCES"""
    counts: Counts
    """size of the dataset"""
    files: list[File]
    """every other file but the manifest"""
    embeds: list[str]
    """feature sets whose encoder the release carries"""
    coverage: Mapping[str, Mapping[str, Any]]
    """feature set -> width, and share of items with image and text ("" where unknown)"""
    encoders: list[list[Any]]
    """rows of the table of encoders, see encoders.rows"""
    judged: list[Comparison]
    """headline comparisons, one a fingerprint; may be empty"""
    probes: Mapping[str, Any] | None
    """probes.json, if there is one"""
    vector: str
    """what the vectors of our own encoder are, in a sentence; may be empty"""
    studied: list[Table]
    """of semantic IDs, see `report.coded.brief`, and of the study, see `report.studied.summed`"""
    gaps: list[dict[str, Any]]
    """rows of `what`, `status`, `n` (items), `share`"""
    incomplete: Mapping[str, int]
    """items without image, without text, with neither"""
    inputs: list[Input]
    """raw files"""
    hardware: str
    """kinds of machine"""
    index: Mapping[str, Any] | None
    """from `retrieval.tune`, if there is an index"""


def render(facts: Facts) -> str:
    """Return the text of README.md."""
    environment = jinja2.Environment(
        autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    template = environment.from_string(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
    return template.render(
        vars(facts) | _judged_without_training(facts.probes or {}),
        header=_header(facts.dataset, facts.kind, facts.counts, facts.files),
        title=f"alignrec features: {facts.dataset}",
        files=[{"path": f.path, "rows": f.rows, "what": _what(f)} for f in facts.files],
        with_interactions=any(f.table == "interactions" for f in facts.files),
        users=_users({f.table for f in facts.files}),
        features=[{"name": name, **covered} for name, covered in facts.coverage.items()],
        candidates=candidates,
        masked_splits=masked_splits,
        row=markdown.row,
        rule=markdown.rule,
        titles=[f"{metric}@{k}" for metric, k in HEADLINE],
        figures=lambda row: [markdown.figure(row.cells.get(key)) for key in HEADLINE],
        source=SOURCES[facts.kind].licence,
        share=lambda n: f"{n:,} ({n / max(facts.counts.items, 1):.1%})",
    )


def _what(file: File) -> str:
    """Return what a file is, for the card."""
    if file.used_by:
        return f"encoder of {', '.join(file.used_by)}"
    return WHAT.get(file.table or file.path) or WHAT.get(PurePosixPath(file.path).name, "")


def _users(tables: set[str | None]) -> str:
    """Return what a release with such tables says of users; empty where it has their interactions and names."""
    if "numbered_user_embeddings" not in tables and "interactions" in tables:
        return ""
    if not tables & {*USER_VECTORS, "users"}:
        return "Nothing of single users is part of it: neither names nor vectors."
    named = "Users have numbers here, no names." if "user_embeddings" not in tables else "Users are named."
    return f"{named} A user's vector gives away many of the items that the user had."


def _judged_without_training(probes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the probes' figures, a row a feature set, raw and processed; and remarks on them."""
    processed = probes.get("processed", {})
    columns = {key: p for key, p in PROBES.items() if _cells(p.figure, probes.get(key, {}))}
    remarks = [
        (f"{p.name} {p.figure}", _remark(probes.get(key, {}), _verdicts(probes, key))) for key, p in PROBES.items()
    ]
    return {
        "probes": [f"{p.name} {p.figure}" for p in columns.values()],
        "questions": "; ".join(f"{probe.name}, {probe.question}" for key, probe in PROBES.items() if key in probes),
        "probed": [
            row
            for features, figures in (("raw", probes), ("processed", processed))
            for row in _rows(features, [_cells(p.figure, figures.get(key, {})) for key, p in columns.items()])
        ],
        "processed_width": processed.get("width"),
        "remarks": [f"{title}: {remark}" for title, remark in remarks if remark],
    }


def _cells(figure: str, probe: Mapping[str, Any]) -> dict[str, str]:
    """Return feature set -> headline figure of a probe."""
    return {name: f"{v[figure]:.4f}" for name, v in probe.items() if isinstance(v, dict) and figure in v}


def _rows(features: str, columns: list[dict[str, str]]) -> list[list[str]]:
    """Return a row a feature set: its name, whether raw or processed, and its figures."""
    names = dict.fromkeys(name for cells in columns for name in cells)
    return [[name, features, *(cells.get(name, "") for cells in columns)] for name in names]


def _verdicts(probes: Mapping[str, Any], probe: str) -> str:
    """Return the verdicts of one probe as sentences."""
    return markdown.verdict_sentences([row for row in probes.get("verdicts", []) if row["probe"] == probe])


def _remark(probe: Mapping[str, Any], verdicts: str = "") -> str:
    """Return why a probe was skipped, or the caveat of its figures and its verdicts; mostly nothing."""
    if "skipped" in probe:
        return f"{probe['skipped']}."
    return " ".join(text for text in (markdown.probe_remark(probe), verdicts) if text)


def _header(dataset: str, kind: str, counts: Counts, files: list[File]) -> str:
    """Return the YAML block: licence, size, and one config a table, as `datasets.load_dataset` names them."""
    configs: dict[str, list[str]] = {}
    for file in files:
        if file.table is not None:
            configs.setdefault(croissant.record_set(file), []).append(file.path)
    size = next((name for limit, name in SIZES if counts.items < limit), "1M<n<10M")
    block = {
        "pretty_name": f"alignrec features: {dataset}",
        **SOURCES[kind].licence.header,
        "language": ["en"],
        "tags": ["recommendation", "multimodal", "feature-extraction", "alignrec"],
        "size_categories": [size],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": paths}]} for name, paths in configs.items()
        ],
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()
