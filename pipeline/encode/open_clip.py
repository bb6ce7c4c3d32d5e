"""Models of open_clip: CLIP, SigLIP and others, from the Hub, a folder, or a published tag."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipeline.encode import origin
from pipeline.encode.base import Spec, foreign
from pipeline.encode.chunks import Chunked, lengths
from pipeline.encode.origin import Origin, Pretrained
from pipeline.encode.towers import Join, Towers, broken, plain
from pipeline.errors import UserError
from pipeline.ops.device import pick, pinned, sent

LIBRARY = "open_clip_torch"
CONFIG = "open_clip_config.json"
CONTROLS = {"<start_of_text>", "<end_of_text>"}


class OpenClipParams(Pretrained, Chunked):
    """Settings of kind `open_clip`."""

    model: str = "ViT-B-32"
    """folder or owner/name on the Hub; or an architecture of open_clip, with `weights`"""
    weights: str | None = None
    """published tag of the architecture's weights, such as laion2b_s34b_b79k"""
    join: Join = "mean"
    """combination of the vectors of image and text, each of length 1"""


class OpenClip(Towers):
    """A network with its preprocessing."""

    def __init__(self, source: Origin, params: OpenClipParams) -> None:
        import open_clip  # takes seconds

        name = f"local-dir:{source.folder}"
        self._device, self._half = pick(), params.precision == "bfloat16"
        network, _, look = open_clip.create_model_and_transforms(name, device=self._device)
        self._network: Any = network.eval()
        self._look: Any = look
        self._tokenizer = open_clip.get_tokenizer(name)
        inner = getattr(self._tokenizer, "tokenizer", None)  # of transformers; else it is open_clip's own
        self._plain = broken(CONTROLS) if inner is None else plain(inner)
        self._inner = inner
        room = int(self._tokenizer.context_length) - 2 if "text" in source.reads else None
        super().__init__(source.reads, params.join, room=room, most=params.chunks)

    def count(self, texts: list[str]) -> list[int]:
        given = [self._plain(text) for text in texts]
        if self._inner is None:
            return [len(self._tokenizer.encode(text)) for text in given]
        return lengths(self._inner, given)

    def image_inputs(self, images: list[Image.Image]) -> Tensor:
        """Return float32 [B, 3, S, S], normalised as the network wants them."""
        return pinned(torch.stack([self._look(image) for image in images]))

    def text_inputs(self, texts: list[str]) -> Tensor:
        """Return int64 [B, T]: every text is padded, or cut, to one length."""
        return pinned(self._tokenizer([self._plain(text) for text in texts]))

    def image_vectors(self, inputs: Tensor) -> Tensor:
        return self._vectors(self._network.encode_image, inputs)

    def text_vectors(self, inputs: Tensor) -> Tensor:
        return self._vectors(self._network.encode_text, inputs)

    def _vectors(self, tower: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return tower(sent(inputs, self._device)).float()


def find(where: str, params: OpenClipParams) -> Origin:
    """Return where a network's files are, see `origin.find`; UserError also for an unknown architecture or tag."""
    source = origin.find(where, _published(where, params), LIBRARY, ["open_clip_model.safetensors"])
    if not (source.folder / CONFIG).is_file():
        raise UserError(f"'{where}.model': {params.model} has no {CONFIG}; open_clip did not save it")
    if "auto_map" in origin.read_json(where, source.folder / "tokenizer_config.json"):  # open_clip would run it
        raise UserError(f"'{where}.model': {params.model}: its tokenizer is Python code of its own, which is not run")
    return replace(source, reads=origin.modalities(where, params, ("image", "text")))


OPEN_CLIP = Spec(foreign(OpenClip), OpenClipParams, origin=find, library=LIBRARY)


def _published(where: str, params: OpenClipParams) -> OpenClipParams:
    model, weights = params.model, params.weights
    if params.folder is not None or "/" in model:
        if weights is not None:
            raise UserError(f"'{where}.weights': {model} has its own weights; leave it out")
        return params
    import open_clip

    if model not in open_clip.list_models():
        raise UserError(f"'{where}.model': no folder '{model}', and open_clip has no such architecture")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags:
        fault = "is required" if weights is None else f"no '{weights}'"
        raise UserError(f"'{where}.weights' {fault}; open_clip has for {model}: {', '.join(tags) or 'none'}")
    repository = str(open_clip.get_pretrained_cfg(model, weights).get("hf_hub") or "").rstrip("/")
    if not origin.REPOSITORY.fullmatch(repository):  # a URL, or a file in a repository
        raise UserError(f"'{where}.weights': {weights} is only published as pickle, which can run code; take another")
    return params.model_copy(update={"model": repository})
