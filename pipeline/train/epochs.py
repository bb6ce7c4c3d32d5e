"""Training by epochs, whatever is trained: valid chooses the epoch, patience ends, and a killed training goes on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam

from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam


class Epochs(ABC):
    """A training under way; a checkpoint holds weights, Adam's state, the history, and the best epoch so far."""

    network: nn.Module
    optimiser: Adam
    checkpoint: Checkpoint | None
    epochs: int
    patience: int

    def __init__(self) -> None:
        """Begin before the first epoch."""
        self.history: list[dict[str, Any]] = []
        self.best, self.best_epoch = -1.0, -1
        self.kept: dict[str, Tensor] = {}
        """tensors of the best epoch"""

    @abstractmethod
    def steps(self, epoch: int) -> Any:
        """Take one step a batch; return the loss. Randomness depends only on the seed and the epoch."""

    @abstractmethod
    def judge(self, epoch: int, loss: Any) -> None:
        """Rank valid, add a line to the history, and `keep` the epoch if it is the best."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return what a checkpoint holds of the network."""
        return self.network.state_dict()

    def is_over(self, epoch: int) -> bool:
        return epoch - self.best_epoch > self.patience

    def run(self, progress: Callable[[dict[str, Any]], object] | None) -> None:
        """Train from the checkpoint, if there is one; `progress` is called with each finished epoch's line."""
        self._restore()
        for epoch in range(len(self.history), self.epochs):
            if self.is_over(epoch):
                break
            self.judge(epoch, self.steps(epoch))
            if self.checkpoint and (epoch + 1) % self.checkpoint.every == 0:
                self._save(self.checkpoint)
            if progress:
                progress(self.history[-1])

    def keep(self, figure: float, tensors: Mapping[str, Tensor]) -> None:
        """Note that the last epoch of the history is the best, and copy tensors of it."""
        self.best, self.best_epoch = figure, len(self.history) - 1
        self.kept = {name: x.detach().cpu().clone() for name, x in tensors.items()}

    def _save(self, checkpoint: Checkpoint) -> None:
        tensors = named("model", self.weights()) | named("best", self.kept) | named("adam", adam_state(self.optimiser))
        state = {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}
        checkpoint.save(tensors, state)

    def _restore(self) -> None:
        if self.checkpoint is None or (saved := self.checkpoint.load()) is None:
            return
        tensors, state = saved
        self.network.load_state_dict(self.network.state_dict() | part_of(tensors, "model"))
        restore_adam(self.optimiser, part_of(tensors, "adam"))
        self.history, self.best, self.best_epoch = state["history"], state["best"], state["best_epoch"]
        self.kept = part_of(tensors, "best")
