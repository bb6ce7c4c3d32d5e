"""The shape of a BEiT3, validated and bounded, because a release's config.json is untrusted.

Needs no torch.
"""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

FIRST_POSITION = 2  # the first row of position embeddings in use, in both streams, as in fairseq
MAX_SIZE = 1 << 24  # upper bound of every number, so that products of several stay exact

Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
OptionalSize = Annotated[int, Field(ge=0, le=MAX_SIZE)]  # 0: absent


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class BEiT3Config:
    """Shape of a BEiT3; the defaults are the released base model.

    ValueError for an impossible shape.
    """

    image: Size = 224  # image side, pixels; a multiple of `patch`
    patch: Size = 16  # patch side, pixels
    vocab: Size = 64010  # text pieces, including special tokens
    width: Size = 768
    layers: Size = 12
    heads: Size = 12  # attention heads; must divide the width
    ffn: Size = 3072  # hidden width of the feed-forward experts
    # rows of the table; texts are two shorter
    positions: Annotated[int, Field(ge=FIRST_POSITION + 2, le=MAX_SIZE)] = 1024
    codes: OptionalSize = 0  # discrete visual tokens that the MIM head predicts; 0: no MIM head
    mlm: bool = False  # whether there is an MLM head

    @model_validator(mode="after")
    def _check_divisors(self) -> Self:
        if self.image % self.patch:
            raise ValueError(f"image {self.image} is not a whole number of patches of {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a whole number of {self.heads} heads")
        return self

    @property
    def grid(self) -> int:
        return self.image // self.patch

    @property
    def patches(self) -> int:
        return self.grid**2


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class MiniConfig:
    """Shape of a BEiT3 `mini`; the defaults are MiniLM's.

    ValueError for an impossible shape.
    """

    image_widths: Annotated[
        tuple[Size, ...], Field(max_length=16)
    ] = ()  # width of each image token
    vocab: Size = 30522  # word pieces, including special tokens
    width: Size = 384
    layers: Size = 6
    heads: Size = 12  # attention heads; must divide the width
    ffn: Size = 1536
    positions: Size = 512  # maximum tokens of a text
    codes: OptionalSize = 0  # discrete visual tokens that the MIM head predicts; 0: no MIM head
    pieces: OptionalSize = 0  # word pieces that the MLM head predicts; 0: no MLM head

    @model_validator(mode="after")
    def _check_divisors(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a whole number of {self.heads} heads")
        return self


BEIT3_CONFIGS: dict[str, BEiT3Config] = {
    "small": BEiT3Config(image=48, patch=8, width=128, layers=3, heads=4, ffn=512, positions=130),
    "base": BEiT3Config(),
    "large": BEiT3Config(width=1024, layers=24, heads=16, ffn=4096),
}
