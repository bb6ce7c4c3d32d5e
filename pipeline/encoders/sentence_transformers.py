"""Models of sentence-transformers: encoders of texts, of images, and of both in one pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encoders import hub, towers
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.linalg.device import pick_device, pin_memory

SENTENCE_TRANSFORMERS_LIBRARY = "sentence-transformers"
BOTH = ("image", "text")


class SentenceTransformersParams(towers.OfHub):
    join: Literal["auto", "fused", "mean", "concat"] = "auto"
    """combination of image and text: in one pass (fused), or mean or concatenation of their
    vectors, each of length 1.
    auto: fused if the network can, otherwise mean"""
    prompt: str | None = None
    """instruction before every text; by default the model's own"""


class SentenceTransformers(towers.Towers):
    """Model of sentence-transformers."""

    def __init__(self, source: hub.Origin, params: SentenceTransformersParams) -> None:
        self._params = params
        towers.silence_transformers()
        self._model = _import_library().SentenceTransformer(
            str(source.folder),
            device=str(pick_device()),
            local_files_only=True,
            trust_remote_code=params.trust_remote_code,
            model_kwargs={"dtype": getattr(torch, params.precision), "use_safetensors": True},
        )
        self._model.eval()
        if absent := [m for m in source.reads if not self._model.supports(m)]:
            rest = [m for m in source.reads if m not in absent]
            raise UserError(f"it reads no {absent[0]}; give modalities: [{', '.join(rest)}]")
        both = set(source.reads) == set(BOTH) and self._model.supports(BOTH)
        if params.join == "fused" and not both:
            raise UserError("it does not read image and text in one pass; take join mean or concat")
        self._fused = both and params.join in ("auto", "fused")
        self._chats = "message" in self._model.modalities
        self._prompt = source.prompt or None
        self.tokenizer = tokenizer = self._model.tokenizer
        self.break_controls = towers.control_breaker(tokenizer)
        # do not truncate whole chats: they contain image placeholders
        if not self._chats and tokenizer is not None and self._model.config is not None:
            most = min(params.max_tokens, towers.longest_input(tokenizer, self._model.config))
            self._model.max_seq_length = min(most, self._model.max_seq_length or most)
        join: towers.Join = "concat" if params.join == "concat" else "mean"
        most, room = self._model.max_seq_length, None
        if (
            not self._chats
            and not self._fused
            and most is not None
            and hasattr(tokenizer, "add_special_tokens")
        ):
            room = max(1, int(most) - len(tokenizer(self._prompt or "")["input_ids"]))
        super().__init__(source.reads, join, params.dim, room, params.chunks)

    def prepare(
        self, images: Sequence[bytes] | None, texts: Sequence[str] | None
    ) -> towers.Prepared:
        if not self._fused or images is None or texts is None:
            return super().prepare(images, texts)
        pairs = zip(towers.open_images(images), texts, strict=True)
        items = [{"image": image, "text": self._bound_text(text)} for image, text in pairs]
        with self._lock:
            return towers.Prepared(
                towers.map_tensors(self._make_inputs(items), pin_memory), [], None
            )

    @torch.inference_mode()
    def encode(self, prepared: towers.Prepared) -> Tensor:
        if not self._fused:
            return super().encode(prepared)
        (inputs,) = prepared.text or [prepared.image]
        return self.image_vectors(self.send(inputs))[:, : self.dim]

    def image_inputs(self, images: list[Image.Image]) -> dict[str, Any]:
        items = [{"image": image} for image in images]
        if not self._chats:
            return self._make_inputs(items)
        with self._lock:  # a chat's template is tokenised
            return self._make_inputs(items)

    def text_inputs(self, texts: list[str]) -> dict[str, Any]:
        return self._make_inputs([{"text": self._bound_text(text)} for text in texts])

    def image_vectors(self, inputs: dict[str, Any]) -> Tensor:
        vectors: Tensor = self._model(inputs)["sentence_embedding"]
        return vectors.float()

    text_vectors = image_vectors

    def _make_inputs(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        # items are dicts, because the model would download a bare text that is a URL
        inputs: dict[str, Any] = self._model.preprocess(items, prompt=self._prompt)
        return inputs

    def _bound_text(self, text: str) -> str:
        """Break up control tokens, and truncate the text of a chat."""
        text, most = self.break_controls(text), self._params.max_tokens
        if not self._chats or len(text) <= most:  # a token has at least one character
            return text
        if not self.tokenizer.is_fast:
            return text[: 4 * most]  # English has about 4 characters per token
        ends = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return text if len(ends) <= most else text[: ends[most - 1][1]]


def find_model(where: str, params: SentenceTransformersParams) -> hub.Origin:
    _import_library()
    source = hub.find_model(
        where,
        params,
        SENTENCE_TRANSFORMERS_LIBRARY,
        [hub.WEIGHTS, *["*.py"] * params.trust_remote_code],
    )
    if (prompt := params.prompt) is None:
        config = hub.read_model_json(
            f"'{where}.model'", source.folder / "config_sentence_transformers.json"
        )
        prompts = config.get("prompts")
        named = (
            prompts.get(config.get("default_prompt_name")) if isinstance(prompts, dict) else None
        )
        prompt = str(named or "")
    return replace(
        source.restrict_to(where, params, _read_modalities(where, params, source)), prompt=prompt
    )


SENTENCE_TRANSFORMERS = Spec(
    SentenceTransformers,
    SentenceTransformersParams,
    origin=find_model,
    library=SENTENCE_TRANSFORMERS_LIBRARY,
)


def _import_library() -> Any:
    try:
        import sentence_transformers
    except ImportError as e:
        raise UserError(
            f"kind 'sentence-transformers' needs another package ({e}): {installing('encoders')}"
        ) from None
    return sentence_transformers


def _read_modalities(
    where: str, params: SentenceTransformersParams, source: hub.Origin
) -> tuple[str, ...]:
    module = hub.read_model_json(f"'{where}.model'", source.folder / "sentence_bert_config.json")
    named = {str(name) for name in module.get("modality_config", {})}
    seen = "vision_config" in hub.read_model_json(f"'{where}.model'", source.folder / "config.json")
    # CLIP models saved before 2026
    if (seen and not named) or (source.folder / "0_CLIPModel").is_dir():
        named = set(BOTH)
    return (
        tuple(m for m in BOTH if m in named)
        or (params.modalities and tuple(params.modalities))
        or ("text",)
    )
