"""Tensors read from files that others wrote: which of them are plain numbers."""

import torch
from torch import Tensor


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is numbers in memory, each in a place of its own.

    Sparse, nested, quantised and complex ones are not, nor those without data, nor those that repeat what they hold:
    these would take any amount of memory, whatever the size of their file.
    """
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.is_quantized
    if odd or tensor.is_complex():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
