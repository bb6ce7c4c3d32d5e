"""Dataset card of a release, README.md, and statements that it shares with croissant.json."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import yaml

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.base import Licence
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.evaluation.evidence import describe_candidates, masked_splits
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.pretrain.params import Pretrain
from alignrec.pipeline.release import contents
from alignrec.pipeline.release.manifest import Counts, Encoder, File, Input, Maker, record_sets
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report import probes, recommenders, study
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import markdown

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


@dataclass(frozen=True)
class Statement:
    """Facts stated by the card and croissant.json, and templates that render them as sentences."""

    publish: Publish
    licence: Licence
    dataset: str
    counts: Counts
    lacking: Mapping[str, str]  # image, text, either -> number of items without
    gaps: Sequence[Sequence[str]]  # part, status, items and share, for statuses other than `ok`
    coverage: Sequence[
        Sequence[Any]
    ]  # feature set, width, share of items with image, with text, of text encoded, and truncated
    hardware: str
    head: float | None  # share of train interactions on the most popular 10 % of items; None: there are none
    learned: Sequence[str]  # feature sets that were trained on interactions
    networks: Mapping[str, Encoder]
    tables: set[str | None]  # kinds of tables in the release
    inputs: Sequence[Input]
    made_by: Mapping[str, Maker]

    # topics follow https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
    def list_sentences(self, topic: str) -> list[str]:
        return self.render_topic(topic).splitlines()

    def render_topic(self, topic: str) -> str:
        return _render_topic(topic, said=self)

    @property
    def users_note(self) -> str:
        """What the release discloses about users; empty if it has interactions and names."""
        if "numbered_user_embeddings" not in self.tables and "interactions" in self.tables:
            return ""
        if not self.tables & {*contents.USER_VECTORS, "users"}:
            return "The release has no data of single users: neither names nor vectors."
        named = "Users have numbers here, no names." if "user_embeddings" not in self.tables else "Users are named."
        return f"{named} A user's vector reveals many of the items that the user had."

    @property
    def model_names(self) -> list[str]:
        return list(dict.fromkeys(model for network in self.networks.values() for model in _model_names(network)))

    @property
    def licence_text(self) -> str:
        return self.publish.licence or self.licence.address or self.licence.text

    @property
    def licence_header(self) -> dict[str, Any]:
        own = self.publish.licence
        if own is None:
            return dict(self.licence.header)
        if SPDX.fullmatch(own):
            return {"license": own.lower()}
        link = {"license_link": own} if own.startswith(("http://", "https://")) else {}
        return {"license": "other", "license_name": "stated-by-publisher", **link}


def describe_vectors(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    ours = [name for name in ("beit3", "beit3-raw", "beit3-official") if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    settings = {key: value for key, value in record["params"].items() if key in Pretrain.model_fields}
    said = _render_topic(
        "vectors",
        widths={name: io.width(layout.features(name)) for name in ours},
        own=Pretrain.model_validate(settings),
        whitened=layout.encoder.whitening.is_file() and FeatureSet.of(layout, ours[0]).facts.settings["whiten"],
        shape=io.read_json(layout.encoder.config),
    )
    return " ".join(said.split())


def _render_topic(topic: str, **values: Any) -> str:
    return str(getattr(TEMPLATES.get_template("statement.jinja").module, topic)(**values)).strip()


def popular_share(interactions: Iterable[pa.Table], n_items: int) -> float | None:
    """Return the share of train interactions on the most popular 10 % of items; None without any."""
    counts = np.zeros(n_items, np.int64)
    for part in interactions:
        counts += np.bincount(part["item_id"].to_numpy()[part["split"].to_numpy() == schemas.TRAIN], minlength=n_items)
    counts = np.sort(counts)[::-1]
    return float(counts[: max(1, n_items // 10)].sum() / counts.sum()) if counts.any() else None


def find_networks(features: Mapping[str, list[Path]]) -> dict[str, Encoder]:
    """Return feature set -> third-party model that made it, read from its Parquet metadata."""
    facts = {name: io.record(paths[0]).get("encoder") for name, paths in features.items()}
    return {name: Encoder.model_validate(fact) for name, fact in facts.items() if fact}


def _model_names(encoder: Encoder) -> list[str]:
    return [m for part in encoder.parts for m in _model_names(part)] or [encoder.model or encoder.kind]


def render_card(outputs: Outputs, said: Statement, files: list[File], **values: Any) -> str:
    first, *_ = said.coverage
    names = {name for name, *_ in said.coverage}
    coded = {name: figures for name, figures in outputs.coded.items() if name in names}
    processed = (outputs.probes or {}).get("processed")
    return TEMPLATES.get_template("card.md").render(
        said=said,
        outputs=outputs,
        header=_metadata_block(said, first[0], files),
        files=[
            [f"`{f.path}`", "" if f.rows is None else f"{f.rows:,}", contents.describe_file(f.path, f.table, f.used_by)]
            for f in files
        ],
        inputs=[[i.name, f"{i.bytes:,}", f"`{i.sha256}`"] for i in said.inputs],
        with_interactions="interactions" in said.tables,
        first=first,
        coverage=[[f"`{name}`", *shares] for name, *shares in said.coverage],
        networks=network_rows(said.networks),
        candidates=describe_candidates,
        masked_splits=masked_splits,
        recommenders=recommenders.results_table,
        probed=list(probes.read_probes(outputs.probes).values()),
        headline=probes.headline_table(outputs.probes),
        processed=probes.describe_processing(processed) if processed else "",
        studied=[*study.semantic_ids(coded), *study.study_tables(outputs.study)],
        hardware=said.hardware,
        gaps=said.gaps,
        markdown=markdown,
        **values,
    )


def network_rows(encoders: Mapping[str, Encoder]) -> list[list[Any]]:
    """Return rows of set, kind, model, revision, library, modalities, prompt and width, each followed by its parts."""
    table: list[list[Any]] = []
    for name, one in encoders.items():
        modalities = ", ".join(one.modalities)
        table.append([name, one.kind, one.model, one.revision, one.library, modalities, one.prompt, one.dim or ""])
        table += network_rows({f"{name}: {part.name}": part for part in one.parts})
    return table


def _metadata_block(said: Statement, first: str, files: list[File]) -> str:
    block = {
        "pretty_name": f"alignrec features: {said.dataset}",
        **said.licence_header,
        **({"language": said.publish.language} if said.publish.language else {}),
        "tags": ["recommendation", "multimodal", "feature-extraction", "alignrec"],
        "size_categories": [next((name for limit, name in SIZES if said.counts.items < limit), "1M<n<10M")],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": [file.path for file in of_table]}]}
            | ({"default": True} if name == f"features-{first}" else {})
            for name, of_table in record_sets(files).items()
        ],
    }
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True).strip()
