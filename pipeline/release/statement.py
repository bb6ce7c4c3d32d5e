"""What a release states about itself: licence, creator, citation, and the facts that reviewers of data sets ask for.

The card and croissant.json are rendered from it. Terms: https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config.parameters import Licence, Shown
from pipeline.release.manifest import Counts, Encoder, Input
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


class Facts(NamedTuple):
    """What a release holds, as far as statements about it depend on it."""

    dataset: str
    kind: str
    """of the source"""
    counts: Counts
    features: Sequence[str]
    lacking: Mapping[str, str]
    """image, text, either -> how many items have none"""
    head: float | None
    """share of train interactions that the most popular tenth of the items has; None: there are none"""
    learned: Sequence[str]
    """feature sets that train interactions went into"""
    networks: Mapping[str, Encoder]
    users: str
    """what the release holds of single users, in a sentence"""
    inputs: Sequence[Input]
    stages: Sequence[str]
    """that made its tables"""
    texts: Shown
    """what it says of an item"""


class Statement(NamedTuple):
    """Sentences and values for the card and croissant.json."""

    publish: Publish
    licence: Licence
    terms: str
    """of use, in words"""
    facts: Facts
    limitations: list[str]
    biases: list[str]
    personal: list[str]
    uses: list[str]
    impact: str

    @property
    def citation(self) -> str:
        """BibTeX of the release, and of the article whose method it is."""
        return f"{self.publish.cite or _entry(self.facts.dataset, self.publish)}\n\n{ARTICLE}"

    @property
    def licensed(self) -> str:
        """The licence as one value: an address where it has one, a name of SPDX's list, or a sentence."""
        return self.publish.licence or self.licence.address or self.licence.text

    @property
    def is_unknown(self) -> bool:
        return self.publish.licence is None and self.licence.header["license"] in (UNKNOWN, "other")


def state(publish: Publish, licence: Licence, facts: Facts) -> Statement:
    """Return the statement of a release."""
    return Statement(
        publish,
        licence,
        _terms(publish, licence),
        facts,
        limitations=_limitations(facts),
        biases=_biases(facts, licence),
        personal=[
            facts.users or "Users are named as their source names them, with all their interactions.",
            "Item texts are as their sellers or authors wrote them, and were not searched for names of persons."
            if facts.texts != "none"
            else "Item texts are not part of the release; vectors were made of them as they are.",
        ],
        uses=[
            "Research on recommendation with text and image features: comparing encoders and recommenders, cold items, "
            "semantic IDs.",
            "Not validated for decisions about persons, nor as a benchmark of image or text understanding.",
        ],
        impact="Ready features make multimodal recommendation reproducible without each group encoding the catalogue "
        "again. Recommenders trained on them repeat the popularity bias of the interactions, and vectors of users give "
        "away much of what a user had.",
    )


def head(items: np.ndarray, n_items: int) -> float | None:
    """Return the share of interactions that the most popular tenth of the items has; `items` has one an interaction."""
    if not len(items):
        return None
    counts = np.sort(np.bincount(items, minlength=n_items))[::-1]
    return float(counts[: max(1, n_items // 10)].sum() / counts.sum())


def popular(interactions: pa.Table, n_items: int, train: int) -> float | None:
    """Return `head` of the train part of table INTERACTIONS."""
    split = interactions["split"].to_numpy()
    return head(interactions["item_id"].to_numpy()[split == train], n_items)


def header(publish: Publish, licence: Licence) -> dict[str, Any]:
    """Return the licence as keys of the Hub's metadata block."""
    if publish.licence is None:
        return dict(licence.header)
    if SPDX.fullmatch(publish.licence):
        return {"license": publish.licence.lower()}
    link = {"license_link": publish.licence} if publish.licence.startswith(("http://", "https://")) else {}
    return {"license": "other", "license_name": "stated-by-publisher", **link}


def _terms(publish: Publish, licence: Licence) -> str:
    if publish.licence is None:
        return licence.text
    source = "" if licence.header["license"] == UNKNOWN else f" Of what it was made from: {licence.text}"
    return f"Licence of this release: {publish.licence.rstrip('.')}.{source}"


def _limitations(facts: Facts) -> list[str]:
    lacking = facts.lacking
    said = [
        f"Of {facts.counts.items:,} items, {lacking['image']} have no image, {lacking['text']} no text, "
        f"{lacking['either']} neither; an item without both has a vector of zeros.",
        "Vectors of different feature sets are not comparable, even of equal width.",
    ]
    if facts.learned:
        said.append(
            f"Train interactions of this release's split went into {', '.join(facts.learned)}: with another split, "
            "these leak test interactions."
        )
    return said


def _biases(facts: Facts, licence: Licence) -> list[str]:
    said = []
    if facts.head is not None:
        said.append(
            f"Popularity: the most popular tenth of the items has {facts.head:.0%} of the train interactions, those of "
            "users and items that the source's filter kept."
        )
    models = list(dict.fromkeys(model for one in facts.networks.values() for model in _models(one)))
    if models:
        said.append(f"Vectors inherit the biases of the data that these networks were trained on: {', '.join(models)}.")
    if licence.synthetic:
        said.append(f"{licence.synthetic} Their preferences follow the generator, not people.")
    return said or ["None was measured: the release holds no interactions and no third-party network."]


def _models(encoder: Encoder) -> list[str]:
    return (
        [encoder.model or encoder.kind] if not encoder.parts else [m for part in encoder.parts for m in _models(part)]
    )


def _entry(dataset: str, publish: Publish) -> str:
    """Return BibTeX of a release, of what is known."""
    fields = {
        "title": f"alignrec features: {dataset}, version {publish.version}",
        "author": " and ".join(f"{{{name}}}" for name in publish.creator or []),
        "year": (publish.date or "")[:4],
        "url": publish.url or "",
        "note": "Multimodal item features",
    }
    body = ",\n".join(f"  {name:<6} = {{{value}}}" for name, value in fields.items() if value)
    return f"@misc{{alignrec-{dataset}-{publish.version},\n{body}\n}}"
