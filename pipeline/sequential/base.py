"""The interface of recommenders that read items in order. Letters: b histories, T their longest, I items, K cutoff."""

from abc import abstractmethod
from typing import ClassVar, Protocol

from torch import Tensor, nn

from pipeline.sequential.sequences import PAD


class Ranker(Protocol):
    """Whatever ranks the items that may follow a history."""

    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Return the K items that follow most probably, best first, each once.

        Args:
            histories: int64 [b, T], PAD in front.
            seen: bool [b, I], items that are not recommended.
            k: cutoff.

        Returns:
            int64 [b, K], -1 where there are no more.
        """


class Sequential(nn.Module):
    """A ranker that is trained on windows of users' items."""

    every: ClassVar[bool]
    """whether a window trains each of its items, or the last alone"""

    @abstractmethod
    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean loss over the items that are predicted: int64 [b, T+1], PAD in front -> scalar."""

    @abstractmethod
    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Do as `Ranker.rank`."""


def trimmed(windows: Tensor) -> Tensor:
    """Return windows without the columns in front that hold no item of any row."""
    return windows[:, int((windows != PAD).any(0).int().argmax()) :]
