"""Tensors read from files that others wrote: which of them are plain numbers."""

import torch
from torch import Tensor


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense and real, with memory for each element: others may take any amount of it."""
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.is_quantized
    if odd or tensor.is_complex():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
