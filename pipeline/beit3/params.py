"""Sections `pretrain` and `beit3` of params.yaml: the network, and the feature sets it makes."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from alignrec.pipeline.encoders.params import MOST_CHUNKS
from alignrec.pipeline.encoders.registry import RELEASED_KIND, Encoders, kind_of
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import (
    MAX_COUNT,
    Count,
    Name,
    Positive,
    Rate,
    Section,
    Seed,
    Threads,
    Weight,
)

BEiT3Set = Literal[
    "beit3",
    "beit3-image-masked",
    "beit3-text-masked",
    "beit3-raw",
    "beit3-raw-image-masked",
    "beit3-raw-text-masked",
    "beit3-untrained",
    "beit3-official",
]

BEIT3_SETS: tuple[str, ...] = get_args(BEiT3Set)
# sets of CLS itself, read by no map
RAW_SETS = tuple(name for name in BEIT3_SETS if name.startswith("beit3-raw"))
IMAGE_TOKENS = ("cnn", "descriptors")  # encoders whose vectors are the image tokens of BEiT3 mini
VOCAB = 8000  # maximum SentencePiece pieces
HELD_OUT_SHARE = 0.02  # share of items held out to measure accuracy
MAX_HELD_OUT = 2000  # maximum number of them
# with a patience their losses decide when training ends, which a dozen items cannot
HELD_OUT_TO_STOP = 64  # minimum number of them
MAX_SHARE_TO_STOP = 0.1  # of the items, of small catalogues
MINI: dict[str, Any] = {  # defaults of size mini
    "max_tokens": 128,
    "steps": 300,
    "batch_size": 64,
    "lr": 1e-4,
}
PIN = "#sha256="  # separates an address from the sha256 of its file


def split_pin(address: str) -> tuple[str, str | None]:
    """Return an address without its pin, and the sha256 that the pin names, if any."""
    file, _, sha256 = address.partition(PIN)
    return file, sha256 or None


def _check_pin(address: str) -> str:
    file, pin, sha256 = address.partition(PIN)
    if not file or (pin and not re.fullmatch("[0-9A-Fa-f]{64}", sha256)):
        raise ValueError(f"write a path or URL, and behind {PIN} all 64 digits of the file's hash")
    return address


PinnedAddress = Annotated[str, AfterValidator(_check_pin)]


class Pretrain(Section):
    """Inter-content alignment: BEiT3 by masked image and language modelling (method.md section 2).

    The defaults are the recipe of docs/pretraining.md, which adds regression of the vectors of
    frozen encoders to MIM and MLM. Those of size mini are MINI where they differ.
    """

    speed: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    size: Literal["mini", "small", "base", "large"] = "mini"
    """network: mini starts from MiniLM and EfficientNet; small from random weights, with images of
    48 x 48 pixels; base and large are the published shapes, with 224"""
    init: PinnedAddress | None = None
    """path or URL of official weights (.pth or .safetensors), pinned by `#sha256=...` at its end as
    in pip; none trains from scratch"""
    tokenizer: PinnedAddress | None = None
    """path or URL of a SentencePiece model, for official weights beit3.spm; none trains one"""
    vqkd: PinnedAddress | None = None
    """path or URL of the weights of BEiT v2's tokenizer (vqkd_encoder_base_decoder_*.pth), whose
    codes MIM then predicts; by default it predicts centroids of k-means over the dataset's
    patches"""
    max_tokens: Annotated[int, Field(ge=3, le=MAX_COUNT)] = 1022
    """tokens per part of a text; a step reads one part; the 1,022 positions of published weights
    are interpolated for more; a network from scratch has as many positions as the longest part"""
    chunks: Positive = MOST_CHUNKS
    """maximum parts per text; the rest of a longer text is truncated"""
    codes: Positive = 128
    """maximum number of k-means centroids"""
    distill: Weight = 10.0
    """weight of the regression from CLS to the teachers' joint vector, also when image or text is
    hidden"""
    distill_from: Annotated[list[Name], Field(min_length=1)] = [
        "minilm",
        "cnn",
        "descriptors",
        "tfidf",
    ]
    """teachers, reduced to one vector as in `linear`: names of section `encoders`, or kinds that
    are not trained here; by default those that read a modality of the data"""
    steps: Count = 3000
    """steps of the optimiser, with a patience at most; 0 leaves the network as initialised"""
    patience: Count = 0
    """measurements on held-out items, of 20 in `steps`, in which neither the loss of MIM nor that
    of MLM falls by half a percent; the learning rate then falls to 0 within a fifth of all steps,
    and training ends; 0 trains for all `steps`"""
    batch_size: Positive = 16
    """items per step of the optimiser, over all processes"""
    accumulate: Positive = 1
    """parts of a step that are computed one after another, to save memory; the step is the same"""
    lr: Rate = 5e-4
    """peak learning rate of AdamW; ten times as high for piece embeddings, unless `init` is
    given"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of matrix products; bfloat16 is faster on a GPU"""
    compile: bool = False
    """use torch.compile, which takes a minute or more at the start; on a CPU it needs a C++
    compiler"""
    checkpoint_every: Positive = 100
    """steps between checkpoints, each with three copies of the weights"""
    threads: Threads = 2
    """CPU threads per process; another number changes the order of sums, and so the last bits"""
    seed: Seed = 0

    @property
    def text_mask(self) -> float:
        return 0.25 if self.size == "mini" else 0.5

    @property
    def hide(self) -> float:
        # CLS of a single modality also has to learn the teachers' vector
        return 0.2 if self.distill and self.size != "mini" else 0.0

    @property
    def weight_decay(self) -> float:
        return 0.01 if self.size == "mini" else 0.05

    @property
    def objective(self) -> str:
        if not self.distill:
            return "MIM + MLM"
        return f"MIM + MLM + {self.distill:g} distill ({', '.join(self.distill_from)})"

    @property
    def summary(self) -> str:
        return "the means of the text's and the image's outputs" if self.size == "mini" else "CLS"

    @property
    def reading(self) -> str:
        if self.distill and self.steps:
            return "read by the linear map to its teachers"
        return "relaxed and joined" if self.size == "mini" else "whitened"

    @model_validator(mode="before")
    @classmethod
    def _by_size(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        if raw.get("size", cls.model_fields["size"].default) != "mini":
            return raw
        for key in ("init", "tokenizer", "vqkd"):
            if raw.get(key):
                raise ValueError(
                    f"pretrain.size: mini starts from MiniLM, so it takes no {key}; "
                    "leave that out, or give another size"
                )
        return {**MINI, **raw}


class BEiT3Params(Section):
    """Settings for encoding with the network that `pretrain` trains."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of matrix products; features are float32. Use bfloat16 for base and large on GPUs,
    or CPUs with AMX or AVX512-BF16; size mini encodes in float32"""
    max_tokens: Annotated[int, Field(ge=3, le=MAX_COUNT)] | None = None
    """tokens per part of a text, at most the network's number of positions; by default
    `pretrain.max_tokens`"""
    chunks: Positive = MOST_CHUNKS
    """maximum parts per text, each encoded with the image; their CLS are averaged, weighted by
    tokens"""
    whiten: bool = True
    """apply the map that `pretrain` fitted to CLS: to the teachers' vectors, or whitening; false:
    raw CLS"""


class BEiT3Sets(BEiT3Params):
    """Section `beit3`: feature sets of the network that `pretrain` trains."""

    sets: list[BEiT3Set] = ["beit3", "beit3-image-masked", "beit3-text-masked"]
    """CLS after the map that `pretrain` fitted; raw CLS; either with one modality masked;
    untrained weights; the weights of `pretrain.init` before training"""


def refuse_encoder_names(encoders: Encoders, listed: Iterable[str]) -> None:
    """Raise UserError for a set of section `beit3` in section `encoders` or `encode.encoders`.

    Those of a release may be called like them.
    """
    ours = [name for name in BEIT3_SETS if kind_of(encoders, name) != RELEASED_KIND]
    for name in encoders:
        if name in ours:
            raise UserError(
                f"'encoders.{name}': its settings are those of section beit3; give them there"
            )
    for name in listed:
        if name in ours:
            raise UserError(
                f"'encode.encoders': '{name}' is encoded by what `pretrain` makes; "
                "list it in beit3.sets"
            )
