"""One training as a value: all that shapes its result, and the key that is the hash of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pipeline.config.base import Section
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result
from pipeline.run import Run

if TYPE_CHECKING:
    from pipeline.experiment.search import Median as Pruning
    from pipeline.ops.checkpoint import Checkpoint

Opens = Literal["valid", "test", "rankings"]
"""what is looked at: valid alone, the figures of test too, or also whom test recommends what"""
Watch = Callable[[dict[str, Any]], object]
"""called with each finished epoch's line of the history"""


class Trained(NamedTuple):
    """A model as it was at its best valid epoch."""

    history: Sequence[dict[str, Any]]
    """one object an epoch: epoch, loss, valid metrics; empty of what nothing trains"""
    best_epoch: int | None
    judge: Callable[[Protocol, Sequence[int]], Result]
    """opens test under a protocol, at cutoffs"""
    fitted: Any = None
    """what the loop returned"""
    observed: Sequence[dict[str, Any]] = ()
    """what else was measured at the end of each epoch, JSON, which the record keeps"""


class Data(ABC):
    """What a training reads. A value that is pickled for the processes of a pool."""

    resumes: ClassVar[bool] = False
    """whether trainings are long enough to keep a checkpoint"""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files that are read, in a defined order; UserError names one that is missing."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what else shapes the data, JSON."""

    @abstractmethod
    def code(self, model: str) -> tuple[list[Path], list[str]]:
        """Return the source files of other packages, and the modules of ours, that train a model."""

    @abstractmethod
    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        """Train the cell's model, test is not looked at; UserError for a wrong input, or a loss that diverges."""


class Pruned(Exception):
    """The training is not worth its end."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One training. Cells of equal keys leave equal bytes, whoever names them.

    A split of another seed is another layout of the data: its files are hashed as all others.
    """

    data: Data
    model: str
    settings: Section
    """all of the model's, of its class Params"""
    protocol: Protocol
    """by which the epoch is chosen; each of its variants judges"""
    seed: int
    """of initial values, order and negatives; made from names, see pipeline.seeds"""
    ks: tuple[int, ...]
    """cutoffs"""
    opens: Opens = "rankings"
    pruning: Pruning | None = None
    """ends the training early"""

    @property
    def facts(self) -> dict[str, Any]:
        """All that shapes the result, but for the bytes that are read, the code and the versions."""
        return self._training | {"ks": self.ks, "opens": self.opens}

    @cached_property
    def key(self) -> str:
        """The sha256 of all that shapes the result."""
        return self._hash(self.facts)

    @cached_property
    def training(self) -> str:
        """As `key`, equal for cells that differ by what they open alone: they share a checkpoint."""
        return self._hash(self._training)

    @property
    def _training(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "data": self.data.facts(),
            "settings": self.settings.model_dump(mode="json"),
            "protocol": self.protocol.fingerprint,
            "seed": self.seed,
            "pruning": self.pruning and asdict(self.pruning),
        }

    def _hash(self, facts: dict[str, Any]) -> str:
        sources, modules = self.data.code(self.model)
        modules = ["pipeline.experiment.training", *modules]
        if self.pruning:
            modules.append(type(self.pruning).__module__)
        return Run.key([*self.data.files(), *sources], facts, modules)
