"""Pooled features of timm's image models, such as DINOv2, DINOv3, ConvNeXt and EVA."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encode import hub
from alignrec.pipeline.encode.hub import Origin, Pretrained
from alignrec.pipeline.encode.registry import Spec
from alignrec.pipeline.encode.towers import Towers
from alignrec.pipeline.ops.device import move_to, pick_device, pin_memory

LIBRARY = "timm"


class TimmParams(Pretrained):
    """Settings of kind `timm`."""


class Timm(Towers):
    """Model of timm without its classifier."""

    def __init__(self, source: Origin, params: TimmParams) -> None:
        import timm  # takes a second

        self._device, self._dtype = pick_device(), getattr(torch, params.precision)
        network: Any = timm.create_model(f"local-dir:{source.folder}", pretrained=True, num_classes=0)
        self._network = network.eval().to(self._device, self._dtype, memory_format=torch.channels_last)
        config = timm.data.resolve_data_config(model=network)
        self._look: Any = timm.data.create_transform(**config, is_training=False)
        super().__init__(source.reads)

    def image_inputs(self, images: list[Image.Image]) -> Tensor:
        return pin_memory(torch.stack([self._look(image) for image in images]))  # float32 [B, 3, S, S]

    def image_vectors(self, inputs: Tensor) -> Tensor:
        vectors: Tensor = self._network(move_to(inputs, self._device).to(self._dtype))
        return vectors.float()


def find_model(where: str, params: TimmParams) -> Origin:
    if params.folder is None and "/" not in params.model:
        params = params.model_copy(update={"model": f"timm/{params.model}"})
    return hub.find_model(where, params, LIBRARY, ["model.safetensors"]).restrict_to(where, params, ("image",))


TIMM = Spec(Timm, TimmParams, reads=("image",), origin=find_model, library=LIBRARY)
