"""Models of open_clip: CLIP, SigLIP and others."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encoders import hub, towers
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.encoders.settings import OpenClipParams
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import pick_device

OPEN_CLIP_LIBRARY = "open_clip_torch"
CONFIG = "open_clip_config.json"
CONTROL_TOKENS = {"<start_of_text>", "<end_of_text>"}


class OpenClip(towers.Towers):
    """Model of open_clip with its preprocessing."""

    def __init__(self, source: hub.Origin, params: OpenClipParams) -> None:
        import open_clip  # takes seconds

        name = f"local-dir:{source.folder}"
        self._device, self._half = pick_device(), source.precision_of(params) == "bfloat16"
        options = params.model_options() | params.processing_options()
        network, _, look = open_clip.create_model_and_transforms(
            name, device=self._device, **options
        )
        self._network: Any = network.eval()
        self._look: Any = look
        self._tokenizer = open_clip.get_tokenizer(name)
        # None for open_clip's own tokenizer
        self.tokenizer = getattr(self._tokenizer, "tokenizer", None)
        self.break_controls = towers.control_breaker(
            self.tokenizer, CONTROL_TOKENS if self.tokenizer is None else ()
        )
        room = int(self._tokenizer.context_length) - 2 if "text" in source.reads else None
        super().__init__(source.reads, params.join, room=room, most=params.chunks)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        if self.tokenizer is not None:
            return super().tokenize(texts)
        return [self._tokenizer.encode(text) for text in texts]

    def image_inputs(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self._look(image) for image in images])  # float32 [B, 3, S, S]

    def text_inputs(self, texts: list[str]) -> Tensor:
        tokens: Tensor = self._tokenizer([self.break_controls(text) for text in texts])
        return tokens  # int64 [B, T], all of one length

    def image_vectors(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            vectors: Tensor = self._network.encode_image(inputs)
        return vectors.float()

    def text_vectors(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            vectors: Tensor = self._network.encode_text(inputs)
        return vectors.float()


def find_model(where: str, params: OpenClipParams) -> hub.Origin:
    source = hub.find_model(where, params, OPEN_CLIP_LIBRARY, [hub.WANTED["open_clip"]])
    if not (source.folder / CONFIG).is_file():
        raise UserError(
            f"'{where}.model': {params.model} has no {CONFIG}; open_clip did not save it"
        )
    # open_clip would run the tokenizer's code
    if "auto_map" in hub.read_model_json(
        f"'{where}.model'", source.folder / "tokenizer_config.json"
    ):
        raise UserError(
            f"'{where}.model': {params.model}: its tokenizer is Python code of its own, which is "
            "not run"
        )
    return source.restrict_to(where, params, source.reads)


OPEN_CLIP = Spec(OpenClip, OpenClipParams, origin=find_model, library=OPEN_CLIP_LIBRARY)
