"""The dataset card: README.md of a release, with the metadata block that the Hugging Face Hub reads."""

from pathlib import Path, PurePosixPath

import jinja2
import yaml

from pipeline.config.parameters import Shown
from pipeline.evaluation.evidence import candidates, masked_splits
from pipeline.release import croissant, statement
from pipeline.release.manifest import File
from pipeline.release.parts import Parts, network_rows
from pipeline.release.statement import Statement
from pipeline.report import codes, content, probes, recommenders, study
from pipeline.report.table import markdown

WHAT = {
    "items": "status of text and image, hashes of what was encoded, and the texts that are released",
    "interactions": "who bought what, with the split",
    "users": "identifiers of the users",
    "features": "one vector per item",
    "features_half": "the same in float16",
    "edges": "nearest items by cosine, itself first",
    "item_embeddings": "the trained recommender's item vectors",
    "user_embeddings": "the trained recommender's user vectors; score = dot product",
    "numbered_user_embeddings": "the trained recommender's user vectors, by number; score = dot product",
    "semantic_ids": "an item as a few discrete codes",
    "tried": "candidates of a set that valid chose, with their figures on valid",
    "codebooks.safetensors": "codebooks of the semantic IDs",
    "codes.json": "how the semantic IDs were made, and how good they are",
    "embeddings/items.faiss": "FAISS index of the item vectors, by inner product; row = item_id",
    "embeddings/index.json": "facts of the index, and its recall",
    "results.json": "benchmark figures by seed",
    "probes.json": "feature sets judged before training",
    "study.json": "mask modality, the long tail, variants of pre-training, sweeps: every row",
    "croissant.json": "this release for readers of MLCommons' Croissant",
}
TEXTS: dict[Shown | None, str] = {
    "all": "`items.parquet` has their public addresses, where there are any, and hashes.",
    "titles": "`items.parquet` has their hashes. Of texts it has title and categories; brands, descriptions and image "
    "addresses are left out (`publish.texts`).",
    "none": "`items.parquet` has their hashes. It has no texts and no image addresses either (`publish.texts`): join "
    "the source's own by the identifier `asin`.",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

ENVIRONMENT = jinja2.Environment(
    autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True
)


def render(parts: Parts, said: Statement, states: content.States, files: list[File]) -> str:
    """Return the text of README.md; `files` are all others but the manifest."""
    template = ENVIRONMENT.from_string(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))
    outputs, features = parts.outputs, content.coverage(parts.features)
    judged = [one for one in outputs.coded if one.features in parts.features]
    processed = (outputs.probes or {}).get("processed")
    return template.render(
        outputs=outputs,
        parts=parts,
        index=next((piece.source for piece in parts.pieces if piece.to == "embeddings/index.json"), None),
        said=said,
        stated={
            "Use": statement.USES,
            "Limitations": said.limitations,
            "Biases": said.biases,
            "Persons": said.personal,
            "Impact": [statement.IMPACT],
        },
        header=_header(parts, said, features[0][0], files),
        texts=TEXTS[parts.publish.texts or "all"],
        files=[[f"`{f.path}`", "" if f.rows is None else f"{f.rows:,}", _what(f)] for f in files],
        inputs=[[i.name, f"{i.bytes:,}", f"`{i.sha256}`"] for i in parts.inputs],
        with_interactions=any(f.table == "interactions" for f in files),
        first=features[0],
        coverage=[[f"`{name}`", *covered] for name, *covered in features],
        encoders=network_rows(said.networks),
        candidates=candidates,
        masked_splits=masked_splits,
        recommenders=recommenders.results,
        probed=list(probes.read(outputs.probes).values()),
        headline=probes.headline(outputs.probes),
        processed=probes.processing(processed) if processed else "",
        studied=[*codes.tables(judged), *study.summed(outputs.study)],
        hardware=content.hardware(outputs.records),
        gaps=content.gaps(states),
        markdown=markdown,
    )


def _what(file: File) -> str:
    if file.used_by:
        return f"encoder of {', '.join(file.used_by)}"
    return WHAT.get(file.table or file.path) or WHAT.get(PurePosixPath(file.path).name, "")


def _header(parts: Parts, said: Statement, first: str, files: list[File]) -> str:
    """Return the YAML block: licence, size, and one config per table, as `datasets.load_dataset` names them.

    `first` is the feature set that it loads by default.
    """
    configs: dict[str, list[str]] = {}
    for file in files:
        if file.table is not None:
            configs.setdefault(croissant.record_set(file), []).append(file.path)
    block = {
        "pretty_name": f"alignrec features: {said.dataset}",
        **statement.header(said.publish, said.licence),
        **({"language": parts.publish.language} if parts.publish.language else {}),
        "tags": ["recommendation", "multimodal", "feature-extraction", "alignrec"],
        "size_categories": [next((name for limit, name in SIZES if said.counts.items < limit), "1M<n<10M")],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": paths}]}
            | ({"default": True} if name == f"features-{first}" else {})
            for name, paths in configs.items()
        ],
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()
