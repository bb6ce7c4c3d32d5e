"""Facts that the card and croissant.json state about a release."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from alignrec.pipeline.encoders.hub import LOCAL
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.features.folder import FeatureSet, text_shares
from alignrec.pipeline.release.manifest import USER_VECTORS, Counts, Encoder, File, Input, Maker
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.base import SOURCES

_LOADER = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=_LOADER,
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)
WEIGHTS = (".safetensors", ".pth", ".onnx")  # suffixes of weight files in a package
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
TRAINING = (
    "pretrain",
    "encode",
    "train",
    "probe",
    "benchmark",
    "study",
)  # stages with machine-dependent results
States = Counter[tuple[str | None, str]]  # (status of image, status of text) -> items


@dataclass(frozen=True)
class Statement:
    """Facts stated by the card and croissant.json, and templates that render them as sentences."""

    publish: Publish
    licence: Licence
    dataset: str
    counts: Counts
    lacking: Mapping[str, str]  # image, text or either -> number of items without it
    gaps: Sequence[Sequence[str]]  # part, status, items and share, for statuses other than `ok`
    coverage: Sequence[Sequence[Any]]  # see `_coverage_rows`
    empty: Sequence[str]  # feature sets that are left out, as all their vectors are zero
    vectors: str  # how the vectors of the encoder trained here are computed; empty without one
    hardware: str
    head: (
        float | None
    )  # share of train interactions on the most popular 10 % of items; None: there are none
    learned: Sequence[str]  # feature sets that were trained on interactions
    networks: Mapping[str, Encoder]
    tables: set[str | None]  # kinds of tables in the release
    inputs: Sequence[Input]
    made_by: Mapping[str, Maker]

    # topics follow https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
    def render_topic(self, topic: str) -> str:
        return _render_topic(topic, said=self)

    @property
    def users_note(self) -> str:
        """What the release discloses about users; empty if it has interactions and names."""
        if "numbered_user_embeddings" not in self.tables and "interactions" in self.tables:
            return ""
        if not self.tables & {*USER_VECTORS, "users"}:
            return "The release has no data of single users: neither names nor vectors."
        named = (
            "Users have numbers here, no names."
            if "user_embeddings" not in self.tables
            else "Users are named."
        )
        return f"{named} A user's vector reveals many of the items that the user had."

    @property
    def model_names(self) -> list[str]:
        return list(
            dict.fromkeys(
                model for network in self.networks.values() for model in _model_names(network)
            )
        )

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


def state_facts(
    items: Path, outputs: Outputs, publish: Publish, names: Sequence[str], empty: Sequence[str],
    files: Sequence[File], inputs: Sequence[Input], made_by: Mapping[str, Maker],
) -> Statement:  # fmt: skip
    """Gather the facts of a release whose tables are written: `items` is its items.parquet, `names` its sets.

    `empty` are the sets that it leaves out.
    """
    layout = outputs.layout
    features = {name: io.shards(layout.features(name), "features") for name in names}
    states: States = Counter()
    for part in io.read_slices(
        items, schemas.RELEASED_ITEMS, ["image_status", "text_status"], io.PART
    ):
        for row in (
            part.group_by(["image_status", "text_status"])
            .aggregate([([], "count_all")])
            .to_pylist()
        ):
            states[row["image_status"], row["text_status"]] += row["count_all"]
    lacking: dict[str, str] = {}
    for what, places in {"image": (0,), "text": (1,), "either": (0, 1)}.items():
        absent = sum(
            n for state, n in states.items() if all(state[place] != "ok" for place in places)
        )
        lacking[what] = f"{absent:,} ({absent / max(states.total(), 1):.1%})"
    ran = [(record, stage) for stage in TRAINING if (record := outputs.records.get(stage))]
    kinds = group_values(
        (f"{record['machine']} ({record['device']})", stage) for record, stage in ran
    )
    users, interactions = (io.rows([path]) for path in (layout.users, layout.interactions))
    counts = Counts(users=users, items=states.total(), interactions=interactions)
    divided = io.read_slices(
        layout.interactions, schemas.INTERACTIONS, ["item_id", "split"], io.PART
    )
    return Statement(
        publish=publish,
        licence=SOURCES[outputs.kind].licence,
        dataset=layout.dataset,
        counts=counts,
        lacking=lacking,
        gaps=_gap_rows(states),
        coverage=_coverage_rows(features),
        empty=empty,
        vectors=describe_vectors(outputs.records.get("pretrain"), layout, names),
        hardware="; ".join(f"{', '.join(stages)}: {kind}" for kind, stages in kinds.items()),
        head=_popular_share(divided, counts.items),
        learned=[name for name in (outputs.probes or {}).get("learned", ()) if name in features],
        networks=_find_networks(layout, names),
        tables={file.table for file in files},
        inputs=inputs,
        made_by=made_by,
    )


def _gap_rows(states: States) -> list[list[str]]:
    rows = []
    for place, what in enumerate(("image", "text")):
        of = Counter[str]()
        for state, n in states.items():
            if (status := state[place]) not in (None, "ok"):
                of[str(status)] += n
        counted = sorted(of.items(), key=lambda one: (-one[1], one[0]))
        rows += [[what, status, f"{n:,}", f"{n / states.total():.1%}"] for status, n in counted]
    return rows


def _coverage_rows(features: Mapping[str, list[Path]]) -> list[list[Any]]:
    """Return rows of name, width and four shares: items with image, with text, tokens encoded, truncated texts."""
    rows = []
    for name, files in features.items():
        read = [
            pq.read_table(path, columns=["has_image", "has_text"], partitioning=None)
            for path in files
        ]
        flags = pa.concat_tables(read)
        shares = (pc.mean(flags[column]).as_py() for column in ("has_image", "has_text"))
        encoded = (text_shares(files) or (None, None))[:2]
        width = pq.read_schema(files[0]).field("vector").type.list_size
        rows.append(
            [
                name,
                width,
                *("" if share is None else f"{share:.1%}" for share in (*shares, *encoded)),
            ]
        )
    return rows


def describe_vectors(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    ours = [name for name in ("beit3", "beit3-raw", "beit3-official") if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    settings = {
        key: value for key, value in record["params"].items() if key in Pretrain.model_fields
    }
    said = _render_topic(
        "vectors",
        widths={name: io.width(layout.features(name)) for name in ours},
        own=Pretrain.model_validate(settings),
        whitened=layout.encoder.whitening.is_file()
        and FeatureSet.of(layout, ours[0]).facts.settings["whiten"],
        shape=io.read_json(layout.encoder.config),
    )
    return " ".join(said.split())


def _render_topic(topic: str, **values: Any) -> str:
    return str(getattr(TEMPLATES.get_template("statement.jinja").module, topic)(**values)).strip()


def _popular_share(interactions: Iterable[pa.Table], n_items: int) -> float | None:
    counts = np.zeros(n_items, np.int64)
    for part in interactions:
        counts += np.bincount(
            part["item_id"].to_numpy()[part["split"].to_numpy() == schemas.TRAIN], minlength=n_items
        )
    counts = np.sort(counts)[::-1]
    return float(counts[: max(1, n_items // 10)].sum() / counts.sum()) if counts.any() else None


def _find_networks(layout: Layout, names: Sequence[str]) -> dict[str, Encoder]:
    """Return feature set -> third-party model, from the metadata of its files or the packages with its weights."""
    found: dict[str, Encoder] = {}
    for name in names:
        own = FeatureSet.of(layout, name)
        if stated := io.record(own.shards[0]).get("encoder"):
            found[name] = _with_packages(Encoder.model_validate(stated))
        elif own.facts.packages:
            made = Encoder(kind=own.facts.network, modalities=list(own.facts.reads), dim=own.width)
            found[name] = _of_packages(made, list(own.facts.packages))
    return found


def _with_packages(encoder: Encoder) -> Encoder:
    """Fill in the packages that ship the weights of bundled encoders, which the parameters do not name."""
    if encoder.parts:
        return encoder.model_copy(
            update={"parts": [_with_packages(part) for part in encoder.parts]}
        )
    spec = None if encoder.model else ENCODERS.get(encoder.kind)
    return _of_packages(encoder, spec.packages) if spec else encoder


def _of_packages(encoder: Encoder, packages: Sequence[str]) -> Encoder:
    if len(packages) > 1:
        parts = [
            _of_packages(Encoder(kind=encoder.kind, name=package), [package])
            for package in packages
        ]
        return encoder.model_copy(update={"parts": parts})
    for package in packages:
        about, files = metadata.metadata(package).json, metadata.files(package) or []
        weights = [Path(str(file.locate())) for file in files if file.suffix in WEIGHTS]
        stated = [about.get("license_expression"), about.get("license")]
        stated += [
            file.read_text().strip().partition("\n")[0] for file in files if file.name == "LICENSE"
        ]
        encoder = encoder.model_copy(update={
            "model": package,
            "revision": LOCAL + (io.sha256(weights[0]) if len(weights) == 1 else io.digest(weights)),
            "library": f"{package} {about['version']}",
            "licence": next((text for text in stated if text and text != "UNKNOWN"), ""),
        })  # fmt: skip
    return encoder


def _model_names(encoder: Encoder) -> list[str]:
    if encoder.parts:
        return [name for part in encoder.parts for name in _model_names(part)]
    return [encoder.model] if encoder.model else []
