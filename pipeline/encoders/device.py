"""Where networks run."""

import torch
from torch import nn


def pick() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network's parameters are on."""
    return next(network.parameters()).device
