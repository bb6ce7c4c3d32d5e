"""What a release states about itself: licence, creator, citation, and the facts that reviewers of data sets ask for.

The card and croissant.json are rendered from it. Terms: https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.parameters import Licence
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.pretrain.params import Pretrain
from alignrec.pipeline.release.contents import USER_VECTORS
from alignrec.pipeline.release.manifest import Counts, Encoder, Input, Maker
from alignrec.pipeline.release.params import Publish

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


@dataclass(frozen=True)
class Statement:
    """Values for the card and croissant.json, and their sentences."""

    publish: Publish
    licence: Licence
    dataset: str
    counts: Counts
    lacking: Mapping[str, str]
    """image, text, either -> number of items without"""
    head: float | None
    """share of train interactions that go to the most popular tenth of the items; None: there are none"""
    learned: Sequence[str]
    """feature sets that train interactions went into"""
    networks: Mapping[str, Encoder]
    tables: set[str | None]
    """kinds of tables in the release"""
    inputs: Sequence[Input]
    made_by: Mapping[str, Maker]

    def sentences(self, topic: str) -> list[str]:
        return self.text(topic).splitlines()

    def text(self, topic: str) -> str:
        return _say(topic, said=self)

    @property
    def users(self) -> str:
        """What the release says of users; empty where it has their interactions and names."""
        if "numbered_user_embeddings" not in self.tables and "interactions" in self.tables:
            return ""
        if not self.tables & {*USER_VECTORS, "users"}:
            return "The release has no data of single users: neither names nor vectors."
        named = "Users have numbers here, no names." if "user_embeddings" not in self.tables else "Users are named."
        return f"{named} A user's vector reveals many of the items that the user had."

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for network in self.networks.values() for model in _models(network)))

    @property
    def licensed(self) -> str:
        return self.publish.licence or self.licence.address or self.licence.text

    @property
    def header(self) -> dict[str, Any]:
        """The licence, as the Hub's metadata block has it."""
        own = self.publish.licence
        if own is None:
            return dict(self.licence.header)
        if SPDX.fullmatch(own):
            return {"license": own.lower()}
        link = {"license_link": own} if own.startswith(("http://", "https://")) else {}
        return {"license": "other", "license_name": "stated-by-publisher", **link}


def describe_vectors(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    """Return sentences on the sets `names` that BEiT3 made, of which run.json of `pretrain` is the `record`."""
    ours = [name for name in ("beit3", "beit3-raw", "beit3-official") if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    settings = {key: value for key, value in record["params"].items() if key in Pretrain.model_fields}
    said = _say(
        "vectors",
        widths={name: io.width(layout.features(name)) for name in ours},
        own=Pretrain.model_validate(settings),
        whitened=layout.encoder.whitening.is_file() and FeatureSet.of(layout, ours[0]).facts.settings["whiten"],
        shape=io.read_json(layout.encoder.config),
    )
    return " ".join(said.split())


def _say(topic: str, **values: Any) -> str:
    return str(getattr(TEMPLATES.get_template("statement.jinja").module, topic)(**values)).strip()


def popular_share(interactions: Iterable[pa.Table], n_items: int) -> float | None:
    """Return the share of train interactions that the most popular tenth of the items has, given INTERACTIONS."""
    counts = np.zeros(n_items, np.int64)
    for part in interactions:
        counts += np.bincount(part["item_id"].to_numpy()[part["split"].to_numpy() == schemas.TRAIN], minlength=n_items)
    counts = np.sort(counts)[::-1]
    return float(counts[: max(1, n_items // 10)].sum() / counts.sum()) if counts.any() else None


def networks(features: Mapping[str, list[Path]]) -> dict[str, Encoder]:
    """Return feature set -> its encoder, of those (name -> Parquet files) that a third-party model made."""
    facts = {name: io.record(paths[0]).get("encoder") for name, paths in features.items()}
    return {name: Encoder.model_validate(fact) for name, fact in facts.items() if fact}


def _models(encoder: Encoder) -> list[str]:
    return [m for part in encoder.parts for m in _models(part)] or [encoder.model or encoder.kind]
