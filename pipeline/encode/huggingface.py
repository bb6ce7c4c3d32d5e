"""Models of transformers: dual encoders such as CLIP, and models of only images or only texts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encode import hub, towers
from alignrec.pipeline.encode.chunks import count_tokens
from alignrec.pipeline.encode.hub import Origin
from alignrec.pipeline.encode.registry import Spec
from alignrec.pipeline.encode.towers import Join, OfHub, Towers
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.ops.device import pick_device

LIBRARY = "transformers"
PADDED = {"siglip", "siglip2"}  # types whose text tower reads the last token of a padded row


class HuggingFaceParams(OfHub):
    """Settings of kind `huggingface`."""

    join: Join = "mean"
    """combination of the vectors of image and text, each of length 1"""
    prompt: str = ""
    """prefix of every text"""


class HuggingFace(Towers):
    """Model of transformers with its image processor and tokenizer."""

    def __init__(self, source: Origin, params: HuggingFaceParams) -> None:
        towers.silence_transformers()
        self._params, self._device = params, pick_device()
        options = {"local_files_only": True, "trust_remote_code": params.trust_remote_code}
        self._network, self._missing = _load_network(source, params, options)
        self._dual = _modalities_of(type(self._network)) == ("image", "text")
        self._padded = self._network.config.model_type in PADDED
        self._process: Any = None
        self._tokenizer: Any = None
        room = None
        if "image" in source.reads:
            from transformers import AutoImageProcessor

            self._process = AutoImageProcessor.from_pretrained(source.folder, **options)
        if "text" in source.reads:
            self._tokenizer = _load_tokenizer(source, options)
            self._plain = towers.control_breaker(self._tokenizer)
            most = towers.longest_input(self._tokenizer, self._network.config)
            self._length = most if self._padded else min(params.max_tokens, most)
            room = max(1, self._length - len(self._tokenizer(params.prompt)["input_ids"]))
        super().__init__(source.reads, params.join, params.dim, room, params.chunks)

    def image_inputs(self, images: list[Image.Image]) -> dict[str, Any]:
        return towers.pin_inputs(self._process(images=images, return_tensors="pt"))

    def count_tokens(self, texts: list[str], unknown: bool = False) -> list[int]:
        return count_tokens(self._tokenizer, [self._plain(text) for text in texts], unknown)

    def text_inputs(self, texts: list[str]) -> dict[str, Any]:
        rows: Mapping[str, Any] = self._tokenizer(
            [self._params.prompt + self._plain(text) for text in texts],
            padding="max_length" if self._padded else True,
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
            return_attention_mask=None if self._dual else True,
        )
        return towers.pin_inputs(rows)

    def image_vectors(self, inputs: dict[str, Any]) -> Tensor:
        inputs = self._send_inputs(inputs)
        if self._dual:
            return _vectors_of(self._network.get_image_features(**inputs))
        output = self._network(**inputs)
        own = getattr(output, "pooler_output", None)
        if own is not None and not any("pooler" in name for name in self._missing):
            return own.flatten(1).float()
        hidden: Tensor = output.last_hidden_state.float()  # [B, T, W], or [B, W, H, W'] of a convolutional network
        return hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden[:, 0]

    def text_vectors(self, inputs: dict[str, Any]) -> Tensor:
        inputs = self._send_inputs(inputs)
        if self._dual:
            return _vectors_of(self._network.get_text_features(**inputs))
        hidden = self._network(**inputs).last_hidden_state.float()  # [B, T, W]
        return pool_tokens(hidden, inputs["attention_mask"], last=_is_decoder(type(self._network.config)))

    def _send_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        there = towers.send_inputs(inputs, self._device)
        return {name: x.to(self._network.dtype) if x.is_floating_point() else x for name, x in there.items()}


def pool_tokens(hidden: Tensor, mask: Tensor, last: bool) -> Tensor:
    """Return the mean, or the last, of tokens [B, T, W] where `mask`, int64 [B, T], is 1: float32 [B, W]."""
    if last:
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    real = mask.unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
    return (hidden * real).sum(1) / real.sum(1)


def find_model(where: str, params: HuggingFaceParams) -> Origin:
    source = hub.find_model(where, params, LIBRARY, ["model*.safetensors", *["*.py"] * params.trust_remote_code])
    reads = params.modalities if params.trust_remote_code else _read_modalities(where, params, source)
    if reads is None:
        raise UserError(f"'{where}.modalities' is required with trust_remote_code, such as [text]")
    return replace(source.restrict_to(where, params, reads), prompt=params.prompt)


HUGGINGFACE = Spec(HuggingFace, HuggingFaceParams, origin=find_model, library=LIBRARY)


def _read_modalities(where: str, params: HuggingFaceParams, source: Origin) -> tuple[str, ...]:
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig

    own = hub.read_model_json(f"'{where}.model'", source.folder / "config.json")
    if "auto_map" in own and own.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"'{where}.model': {params.model} is Python code of its own; trust_remote_code: true lets it run here"
        )
    with hub.reraise_as_user_error(where):
        config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
        classes: Any = MODEL_MAPPING.get(type(config), ())
    network = classes[0] if isinstance(classes, tuple) and classes else classes  # some types have several classes
    if network and not config.is_encoder_decoder and (reads := _modalities_of(network)):
        return reads
    raise UserError(
        f"'{where}.model': {params.model} is of type {config.model_type}, which has no towers for images or texts; "
        "kind sentence-transformers may read it"
    )


def _modalities_of(network: type) -> tuple[str, ...]:
    if hasattr(network, "get_image_features"):
        return ("image", "text") if hasattr(network, "get_text_features") else ()
    main = getattr(network, "main_input_name", None)
    return {"pixel_values": ("image",), "input_ids": ("text",)}.get(str(main), ())


def _load_network(source: Origin, params: HuggingFaceParams, options: dict[str, Any]) -> tuple[Any, set[str]]:
    from transformers import AutoModel

    dtype = getattr(torch, params.precision)
    network, info = AutoModel.from_pretrained(
        source.folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
    )
    missing = set(info["missing_keys"]) | {str(name) for name in info["mismatched_keys"]}
    # only an unused pooler may lack weights
    if others := sorted(name for name in missing if "pooler" not in name):
        raise UserError(f"{len(others)} parameters are not in its weights, first {others[0]}; get the model again")
    return network.eval().to(pick_device()), missing


def _load_tokenizer(source: Origin, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.folder, **options)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        raise UserError("its tokenizer has no token to pad with; add pad_token to tokenizer_config.json")
    return tokenizer


def _is_decoder(config: type) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    return config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_MASKED_LM_MAPPING


def _vectors_of(output: Any) -> Tensor:
    # a tensor in transformers 4, an output object in 5
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors.float()
