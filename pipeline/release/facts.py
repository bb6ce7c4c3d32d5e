"""Facts that the card and croissant.json state about a release."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.stopping import list_at_chance
from alignrec.pipeline.encoders.hub import LOCAL
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.quality import text_shares
from alignrec.pipeline.release import catalogue
from alignrec.pipeline.release.manifest import Counts, Encoder, File, Input, Maker
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.release.table_kinds import USER_VECTORS
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.base import SOURCES

CARD_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)
CARD_TEMPLATES.filters["thousands"] = "{:,}".format
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".onnx")  # of weight files in a package
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
# stages with machine-dependent results
MEASURED_STAGES = ("pretrain", "encode", "train", "probe", "benchmark", "study")
TRAINED_HERE = ("beit3", "beit3-raw", "beit3-official")  # feature sets of the network of this run

States = Counter[tuple[str | None, str]]  # (status of image, status of text) -> items


@dataclass(frozen=True)
class ReleaseFacts:
    """Facts stated by the card and croissant.json, and templates that render them as sentences."""

    publish: Publish
    licence: Licence
    dataset: str
    counts: Counts
    lacking: Mapping[str, str]  # image, text or either -> number of items without it
    gaps: Sequence[Sequence[str]]  # part, status, items and share, for statuses other than `ok`
    coverage: Sequence[Sequence[Any]]  # see `_coverage_row`
    empty: Sequence[str]  # feature sets that are left out, as all their vectors are zero
    vectors: str  # how the vectors of the encoder trained here are computed; empty without one
    hardware: str
    # share of train interactions on the most popular 10 % of items; None: there are none
    head: float | None
    networks: Mapping[str, Encoder]
    tables: set[str | None]  # kinds of tables in the release
    inputs: Sequence[Input]
    made_by: Mapping[str, Maker]

    # topics follow https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
    def render_topic(self, topic: str) -> str:
        return _render_topic(topic, facts=self)

    @property
    def users_note(self) -> str:
        """What the release discloses about users; empty if it has interactions and names."""
        if "numbered_user_embeddings" not in self.tables and "interactions" in self.tables:
            return ""
        if self.tables.isdisjoint({*USER_VECTORS, "users"}):
            return "The release has no data of single users: neither names nor vectors."

        identity = "Users have numbers here, no names."
        if "user_embeddings" in self.tables:
            identity = "Users are named."
        return f"{identity} A user's vector reveals many of the items that the user had."

    @property
    def model_names(self) -> list[str]:
        names: list[str] = []
        for network in self.networks.values():
            names += _model_names(network)
        return list(dict.fromkeys(names))

    @property
    def licence_text(self) -> str:
        return self.publish.licence or self.licence.address or self.licence.text

    @property
    def licence_header(self) -> dict[str, Any]:
        licence = self.publish.licence
        if licence is None:
            return dict(self.licence.header)
        if SPDX.fullmatch(licence):
            return {"license": licence.lower()}

        header = {"license": "other", "license_name": "stated-by-publisher"}
        if licence.startswith(("http://", "https://")):
            header["license_link"] = licence
        return header


def gather_facts(
    items: Path,
    outputs: Outputs,
    publish: Publish,
    names: Sequence[str],
    empty: Sequence[str],
    files: Sequence[File],
    inputs: Sequence[Input],
    made_by: Mapping[str, Maker],
) -> ReleaseFacts:
    """Gather the facts of a release with its tables written: `items` is its items.parquet.

    `names` are its feature sets, `empty` those that it leaves out.
    """
    layout = outputs.layout
    states = _count_states(items)
    counts = Counts(
        users=io.rows([layout.users]),
        items=states.total(),
        interactions=io.rows([layout.interactions]),
        core=catalogue.count_core(layout),
    )
    return ReleaseFacts(
        publish=publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=layout.dataset,
        counts=counts,
        lacking=_describe_lacking(states),
        gaps=[*_gap_rows("image", states), *_gap_rows("text", states)],
        coverage=[_coverage_row(FeatureSet.of(layout, name), items.parent) for name in names],
        empty=empty,
        vectors=describe_vectors(outputs.records.get("pretrain"), layout, names),
        hardware=_describe_hardware(outputs.records),
        head=_popular_share(layout.interactions, catalogue.core_of(counts)),
        networks=_find_networks(layout, names),
        tables={file.table for file in files},
        inputs=inputs,
        made_by=made_by,
    )


def _count_states(items: Path) -> States:
    states: States = Counter()
    columns = ["image_status", "text_status"]
    for part in io.read_slices(items, schemas.RELEASED_ITEMS, columns, io.PART):
        for row in part.group_by(columns).aggregate([([], "count_all")]).to_pylist():
            states[row["image_status"], row["text_status"]] += row["count_all"]
    return states


def _describe_lacking(states: States) -> dict[str, str]:
    image = sum(n for state, n in states.items() if state[0] != "ok")
    text = sum(n for state, n in states.items() if state[1] != "ok")
    either = sum(n for state, n in states.items() if "ok" not in state)

    total = max(states.total(), 1)
    counts = {"image": image, "text": text, "either": either}
    return {part: f"{n:,} ({n / total:.1%})" for part, n in counts.items()}


def _gap_rows(part: str, states: States) -> list[list[str]]:
    items = Counter[str]()
    for (image_status, text_status), n in states.items():
        status = image_status if part == "image" else text_status
        if status not in (None, "ok"):
            items[str(status)] += n

    total = states.total()
    ordered = sorted(items.items(), key=lambda pair: (-pair[1], pair[0]))
    return [[part, status, f"{n:,}", f"{n / total:.1%}"] for status, n in ordered]


def _coverage_row(features: FeatureSet, release: Path) -> list[Any]:
    """Return name, width in the release, and shares: items with image and with text, tokens that
    were encoded, cut texts.
    """
    columns = ["has_image", "has_text"]
    shards = [*features.shards, *(further.shards if (further := features.further()) else ())]
    tables = [pq.read_table(path, columns=columns, partitioning=None) for path in shards]
    flags = pa.concat_tables(tables)
    texts = text_shares(shards)

    shares = [pc.mean(flags[column]).as_py() for column in columns]
    shares += [texts.read, texts.cut] if texts else [None, None]
    cells = ["" if share is None else f"{share:.1%}" for share in shares]
    return [features.name, io.width(release / "features" / features.name), *cells]


def _describe_hardware(records: Mapping[str, Mapping[str, Any]]) -> str:
    stages: dict[str, list[str]] = {}
    for stage in MEASURED_STAGES:
        if record := records.get(stage):
            machine = f"{record['machine']} ({record['device']})"
            stages.setdefault(machine, []).append(stage)
    return "; ".join(f"{', '.join(names)}: {machine}" for machine, names in stages.items())


def describe_vectors(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    trained = [name for name in TRAINED_HERE if name in names]
    if record is None or not trained or not layout.encoder.config.is_file():
        return ""

    params = {key: value for key, value in record["params"].items() if key in Pretrain.model_fields}
    is_whitened = layout.encoder.whitening.is_file()
    sentences = _render_topic(
        "vectors",
        widths={name: io.width(layout.features(name)) for name in trained},
        pretraining=Pretrain.model_validate(params),
        whitened=is_whitened and FeatureSet.of(layout, trained[0]).facts.settings["whiten"],
        shape=io.read_json(layout.encoder.config),
        at_chance=list_at_chance(record.get("notes", {})),
    )
    return " ".join(sentences.split())


def _render_topic(topic: str, **values: Any) -> str:
    macros = CARD_TEMPLATES.get_template("statement.jinja").module
    return str(getattr(macros, topic)(**values)).strip()


def _popular_share(interactions: Path, n_items: int) -> float | None:
    counts = np.zeros(n_items, np.int64)
    columns = ["item_id", "split"]
    for part in io.read_slices(interactions, schemas.INTERACTIONS, columns, io.PART):
        train_items = part["item_id"].to_numpy()[part["split"].to_numpy() == schemas.TRAIN]
        counts += np.bincount(train_items, minlength=n_items)

    if not counts.any():
        return None
    most_popular = np.sort(counts)[::-1][: max(1, n_items // 10)]
    return float(most_popular.sum() / counts.sum())


def _find_networks(layout: Layout, names: Sequence[str]) -> dict[str, Encoder]:
    """Return feature set -> third-party model, from its files or the packages with its weights."""
    networks: dict[str, Encoder] = {}
    for name in names:
        features = FeatureSet.of(layout, name)
        facts = features.facts
        if stated := io.record(features.shards[0]).get("encoder"):
            networks[name] = _with_packages(Encoder.model_validate(stated))
        elif facts.packages:
            encoder = Encoder(kind=facts.network, modalities=list(facts.reads), dim=features.width)
            networks[name] = _of_packages(encoder, list(facts.packages))
    return networks


def _with_packages(encoder: Encoder) -> Encoder:
    """Fill in the packages with the weights of bundled encoders, which parameters do not name."""
    if encoder.parts:
        parts = [_with_packages(part) for part in encoder.parts]
        return encoder.model_copy(update={"parts": parts})
    spec = None if encoder.model else ENCODERS.get(encoder.kind)
    return _of_packages(encoder, spec.packages) if spec else encoder


def _of_packages(encoder: Encoder, packages: Sequence[str]) -> Encoder:
    if not packages:
        return encoder
    if len(packages) == 1:
        return encoder.model_copy(update=_package_facts(packages[0]))
    parts = []
    for package in packages:
        part = Encoder(kind=encoder.kind, name=package)
        parts.append(part.model_copy(update=_package_facts(package)))
    return encoder.model_copy(update={"parts": parts})


def _package_facts(package: str) -> dict[str, Any]:
    """Return the keys of `Encoder` that a package with weights states."""
    stated = metadata.metadata(package).json
    files = metadata.files(package) or []
    weights = [Path(str(file.locate())) for file in files if file.suffix in WEIGHT_SUFFIXES]
    sha256 = io.sha256(weights[0]) if len(weights) == 1 else io.digest(weights)

    licences = [stated.get("license_expression"), stated.get("license")]
    for file in files:
        if file.name == "LICENSE":
            title, *_ = file.read_text().strip().split("\n")
            licences.append(title)
    return {
        "model": package,
        "revision": f"{LOCAL}{sha256}",
        "library": f"{package} {metadata.version(package)}",
        "licence": str(next((text for text in licences if text and text != "UNKNOWN"), "")),
    }


def _model_names(encoder: Encoder) -> list[str]:
    if not encoder.parts:
        return [encoder.model] if encoder.model else []
    names: list[str] = []
    for part in encoder.parts:
        names += _model_names(part)
    return names
