"""What a release states about itself: licence, creator, citation, and the facts that reviewers of data sets ask for.

The card and croissant.json are rendered from it. Terms: https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.config.parameters import Licence
from pipeline.layout import Layout
from pipeline.pretrain.params import Pretrain
from pipeline.release.manifest import USER_VECTORS, Counts, Encoder, Input
from pipeline.release.params import Publish

ARTICLE = """@inproceedings{liu2024alignrec,
  title     = {AlignRec: Aligning and Training in Multimodal Recommendations},
  author    = {Liu, Yifan and Zhang, Kangning and Ren, Xiangyuan and Huang, Yanhua and Jin, Jiarui and Qin, Yingjie and Su, Ruilong and Xu, Ruiwen and Yu, Yong and Zhang, Weinan},
  booktitle = {Proceedings of the 33rd ACM International Conference on Information and Knowledge Management (CIKM)},
  year      = {2024},
  note      = {arXiv:2403.12384}
}"""  # noqa: E501
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
UNKNOWN = "unknown"
"""the Hub's name of a licence that is not stated"""
USES = [
    "Research on recommendation with text and image features: comparing encoders and recommenders, cold items, "
    "semantic IDs.",
    "Not validated for decisions about persons, nor as a benchmark of image or text understanding.",
]
IMPACT = (
    "Ready features make multimodal recommendation reproducible without each group encoding the catalogue again. "
    "Recommenders trained on them repeat the popularity bias of the interactions, and vectors of users reveal much of "
    "what a user had."
)
VECTORS = {
    "beit3": "{} itself",
    "beit3-raw": "{} itself, read by no map",
    "beit3-official": "{} itself of the weights that training began from",
}
"""feature set -> what it is; {} is replaced by what the network gives for an item"""


@dataclass(frozen=True)
class Statement:
    """Sentences and values for the card and croissant.json."""

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
    users: str
    inputs: Sequence[Input]
    stages: Sequence[str]

    @property
    def citation(self) -> str:
        return f"{self.publish.cite or _entry(self.dataset, self.publish)}\n\n{ARTICLE}"

    @property
    def licensed(self) -> str:
        return self.publish.licence or self.licence.address or self.licence.text

    @property
    def is_unknown(self) -> bool:
        return self.publish.licence is None and self.licence.header["license"] in (UNKNOWN, "other")

    @property
    def terms(self) -> str:
        if self.publish.licence is None:
            return self.licence.text
        source = "" if self.licence.header["license"] == UNKNOWN else f" Source: {self.licence.text}"
        return f"Licence of this release: {self.publish.licence.rstrip('.')}.{source}"

    @property
    def limitations(self) -> list[str]:
        lacking = self.lacking
        sentences = [
            f"Of {self.counts.items:,} items, {lacking['image']} have no image, {lacking['text']} no text, "
            f"{lacking['either']} neither; an item without both has a vector of zeros.",
            "Vectors of different feature sets are not comparable, even of equal width.",
        ]
        if self.learned:
            sentences.append(
                f"Train interactions of this release's split went into {', '.join(self.learned)}: with another split, "
                "these leak test interactions."
            )
        return sentences

    @property
    def biases(self) -> list[str]:
        sentences = []
        if self.head is not None:
            sentences.append(
                f"Popularity: the most popular tenth of the items has {self.head:.0%} of the train interactions, "
                "counted after the source's filter."
            )
        if models := dict.fromkeys(model for one in self.networks.values() for model in _models(one)):
            sentences.append(f"Vectors inherit the biases of the training data of these networks: {', '.join(models)}.")
        if self.licence.synthetic:
            sentences.append(f"{self.licence.synthetic} Their preferences follow the generator, not people.")
        return sentences or ["None was measured: the release holds no interactions and no third-party network."]

    @property
    def personal(self) -> list[str]:
        texts = (
            "Item texts are as their sellers or authors wrote them, and were not searched for names of persons."
            if self.publish.texts != "none"
            else "Item texts are not part of the release; vectors were made of the unfiltered texts."
        )
        return [self.users or "Users are named as their source names them, with all their interactions.", texts]


def vector(record: Mapping[str, Any] | None, layout: Layout, names: Sequence[str]) -> str:
    """Return sentences on the vectors of the released sets `names`; empty if none of them is BEiT3's.

    `record` is the run.json of `pretrain`.
    """
    ours = [name for name in VECTORS if name in names]
    if record is None or not ours or not layout.encoder.config.is_file():
        return ""
    own = Pretrain.model_validate({k: value for k, value in record["params"].items() if k in Pretrain.model_fields})
    encoded = io.record(io.shards(layout.features(ours[0]), "features")[0]).get("params", {})
    whitened = layout.encoder.whitening.is_file() and encoded.get("whiten", True)
    is_a = VECTORS | ({"beit3": f"{{}}, {own.reading}"} if whitened else {})
    sentences = [
        f"`{name}` is {is_a[name].format(own.summary)}, {io.width(layout.features(name))} numbers." for name in ours
    ]
    shape = io.read_json(layout.encoder.config)
    start = f"from `{PurePosixPath(urlsplit(own.init).path).name}`" if own.init else "from random weights"
    images = f"for images of {shape.get('image')} pixels a side"
    if own.size == "mini":
        start, images = "from all-MiniLM-L6-v2", "for vectors of images by EfficientNet-Lite0 and descriptors"
    losses = f"pre-trained by {own.objective}" if own.steps else "not trained: it is as it was initialised"
    sentences.append(f"The network is a BEiT3 of {shape['layers']} layers, {images}, {start}, {losses}.")
    if own.distill and own.steps:
        sentences.append(
            "AlignRec's article trains by MIM + MLM only and reads CLS itself: none of these is its feature."
        )
    return " ".join(sentences)


def users(tables: set[str | None]) -> str:
    """Return what a release with such tables says of users; empty where it has their interactions and names."""
    if "numbered_user_embeddings" not in tables and "interactions" in tables:
        return ""
    if not tables & {*USER_VECTORS, "users"}:
        return "The release has no data of single users: neither names nor vectors."
    named = "Users have numbers here, no names." if "user_embeddings" not in tables else "Users are named."
    return f"{named} A user's vector reveals many of the items that the user had."


def head(interactions: Iterable[pa.Table], n_items: int) -> float | None:
    """Return the share of train interactions, of parts of table INTERACTIONS, that go to the most popular tenth of the
    items."""
    counts = np.zeros(n_items, np.int64)
    for part in interactions:
        counts += np.bincount(part["item_id"].to_numpy()[part["split"].to_numpy() == schemas.TRAIN], minlength=n_items)
    counts = np.sort(counts)[::-1]
    return float(counts[: max(1, n_items // 10)].sum() / counts.sum()) if counts.any() else None


def header(publish: Publish, licence: Licence) -> dict[str, Any]:
    if publish.licence is None:
        return dict(licence.header)
    if SPDX.fullmatch(publish.licence):
        return {"license": publish.licence.lower()}
    link = {"license_link": publish.licence} if publish.licence.startswith(("http://", "https://")) else {}
    return {"license": "other", "license_name": "stated-by-publisher", **link}


def _models(encoder: Encoder) -> list[str]:
    return [m for part in encoder.parts for m in _models(part)] or [encoder.model or encoder.kind]


def _entry(dataset: str, publish: Publish) -> str:
    fields = {
        "title": f"alignrec features: {dataset}, version {publish.version}",
        "author": " and ".join(f"{{{name}}}" for name in publish.creator or []),
        "year": (publish.date or "")[:4],
        "url": publish.url or "",
        "note": "Multimodal item features",
    }
    body = ",\n".join(f"  {name:<6} = {{{value}}}" for name, value in fields.items() if value)
    return f"@misc{{alignrec-{dataset}-{publish.version},\n{body}\n}}"
