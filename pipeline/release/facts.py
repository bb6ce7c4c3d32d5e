"""Facts that the card and croissant.json state about a release."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        names = dict.fromkeys(_model_names(self.networks.values()))
        return list(names)

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
    statuses = io.read_table(items, schemas.RELEASED_ITEMS, ["image_status", "text_status"])
    counts = Counts(
        users=io.rows([layout.users]),
        items=len(statuses),
        interactions=io.rows([layout.interactions]),
        core=catalogue.count_core(layout),
    )
    return ReleaseFacts(
        publish=publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=layout.dataset,
        counts=counts,
        lacking=_describe_lacking(statuses),
        gaps=[
            *_gap_rows("image", statuses["image_status"]),
            *_gap_rows("text", statuses["text_status"]),
        ],
        coverage=[_coverage_row(layout, name, items.parent) for name in names],
        empty=empty,
        vectors=describe_vectors(outputs.records.get("pretrain"), layout, names),
        hardware=_describe_hardware(outputs.records),
        head=_popular_share(layout.interactions, catalogue.core_of(counts)),
        networks=_find_networks(layout, names),
        tables={file.table for file in files},
        inputs=inputs,
        made_by=made_by,
    )


def _describe_lacking(statuses: pa.Table) -> dict[str, str]:
    image = pc.not_equal(statuses["image_status"].fill_null(""), "ok")
    text = pc.not_equal(statuses["text_status"], "ok")
    lacking = {"image": image, "text": text, "either": pc.and_(image, text)}
    described = {}
    for part, items in lacking.items():
        n = pc.sum(items).as_py() or 0
        described[part] = f"{n:,} ({n / max(len(items), 1):.1%})"
    return described


def _gap_rows(part: str, statuses: pa.ChunkedArray) -> list[list[str]]:
    counted = statuses.drop_null().value_counts().to_pylist()
    counted.sort(key=lambda row: (-row["counts"], row["values"]))
    rows = []
    for row in counted:
        n, status = row["counts"], row["values"]
        if status != "ok":
            rows.append([part, status, f"{n:,}", f"{n / len(statuses):.1%}"])
    return rows


def _coverage_row(layout: Layout, name: str, release: Path) -> list[Any]:
    """Return name, width in the release, and shares: items with image and with text, tokens that
    were encoded, cut texts.
    """
    columns = ["has_image", "has_text"]
    files = catalogue.list_feature_files(layout, name)
    flags = pq.read_table(files, columns=columns, partitioning=None)
    texts = text_shares(files)

    shares = [pc.mean(column).as_py() for column in flags.columns]
    shares += [texts.read, texts.cut] if texts else [None, None]
    cells = ["" if share is None else f"{share:.1%}" for share in shares]
    return [name, io.width(release / "features" / name), *cells]


def _describe_hardware(records: Mapping[str, Mapping[str, Any]]) -> str:
    stages = defaultdict[str, list[str]](list)
    for stage in MEASURED_STAGES:
        if record := records.get(stage):
            stages[f"{record['machine']} ({record['device']})"].append(stage)
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
            networks[name] = _of_packages(encoder, facts.packages)
    return networks


def _with_packages(encoder: Encoder) -> Encoder:
    """Fill in the packages with the weights of bundled encoders, which parameters do not name."""
    if encoder.parts:
        parts = [_with_packages(part) for part in encoder.parts]
        return encoder.model_copy(update={"parts": parts})
    spec = None if encoder.model else ENCODERS.get(encoder.kind)
    return _of_packages(encoder, spec.packages) if spec else encoder


def _of_packages(encoder: Encoder, packages: Iterable[str]) -> Encoder:
    stated = {package: _package_facts(package) for package in packages}
    if len(stated) == 1:
        return encoder.model_copy(update=stated.popitem()[1])
    parts = [Encoder(kind=encoder.kind, name=name, **facts) for name, facts in stated.items()]
    return encoder.model_copy(update={"parts": parts})


def _package_facts(package: str) -> dict[str, Any]:
    """Return the keys of `Encoder` that a package with weights states."""
    installed = metadata.distribution(package)
    stated = installed.metadata.json
    files = installed.files or []
    weights = [Path(str(file.locate())) for file in files if file.suffix in WEIGHT_SUFFIXES]
    sha256 = io.sha256(weights[0]) if len(weights) == 1 else io.digest(weights)

    licences = [stated.get("license_expression"), stated.get("license")]
    texts = [file.read_text().strip() for file in files if file.name == "LICENSE"]
    licences += [text.partition("\n")[0] for text in texts]
    return {
        "model": package,
        "revision": f"{LOCAL}{sha256}",
        "library": f"{package} {installed.version}",
        "licence": next((str(text) for text in licences if text and text != "UNKNOWN"), ""),
    }


def _model_names(encoders: Iterable[Encoder]) -> Iterator[str]:
    for encoder in encoders:
        if encoder.parts:
            yield from _model_names(encoder.parts)
        elif encoder.model:
            yield encoder.model
