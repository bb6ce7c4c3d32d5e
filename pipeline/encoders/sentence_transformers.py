"""Models of sentence-transformers: encoders of texts, of images, and of both in one pass."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignrec.pipeline.encoders import hub, towers
from alignrec.pipeline.encoders.registry import Spec
from alignrec.pipeline.encoders.settings import AUTO, Join, SentenceTransformersParams
from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.linalg.device import pick_device, pin_memory

SENTENCE_TRANSFORMERS_LIBRARY = "sentence-transformers"
BOTH = ("image", "text")
DOCUMENT = "document"  # task of `encode_document`
DOCUMENT_PROMPTS = (DOCUMENT, "passage", "corpus")  # names of prompts, first choice first
STORED_PROMPTS = "config_sentence_transformers.json"
CONFIG, MODULES = "config.json", "modules.json"
CONFIGS = {CONFIG, "router_config.json", "sentence_bert_config.json"}  # that may name tasks
TASK_IN_TEMPLATE = re.compile(r"\{[%{][^}]*\btask\b")


class SentenceTransformers(towers.Towers):
    """Model of sentence-transformers."""

    def __init__(self, source: hub.Origin, params: SentenceTransformersParams) -> None:
        self._params = params
        self._prompt = source.prompt or None
        # arguments of every pass
        self._arguments: dict[str, Any] = {"task": source.task} if source.task else {}
        self._processing: dict[str, Any] = {}
        if params.processing_options():
            self._processing["processing_kwargs"] = {"image": params.processing_options()}
        self._model = _load_model(source, params)
        self._model.eval()

        if absent := [m for m in source.reads if not self._model.supports(m)]:
            rest = [m for m in source.reads if m not in absent]
            raise UserError(f"it reads no {absent[0]}; give modalities: [{', '.join(rest)}]")
        both = set(source.reads) == set(BOTH) and self._model.supports(BOTH)
        if params.join == "fused" and not both:
            raise UserError("it does not read image and text in one pass; take join mean or concat")
        self._fused = both and params.join in ("auto", "fused")
        self._chats = "message" in self._model.modalities

        reader = self._model[0]
        if "text" in source.reads:
            reader = _text_module(self._model, source.task)
        self.tokenizer = getattr(reader, "tokenizer", None)
        self.break_controls = towers.control_breaker(self.tokenizer)
        room = None
        if not self._chats:
            length = _limit_length(reader, params.max_tokens, self._model.config)
            if not self._fused:
                room = self._room_for_text(length)

        join: Join = "concat" if params.join == "concat" else "mean"
        super().__init__(source.reads, join, params.dim, room, params.chunks)

    def _room_for_text(self, length: float | None) -> int | None:
        """Return the tokens of a text per pass, of `length` with prompt and special tokens."""
        if length is None or self.tokenizer is None:
            return None
        if length == math.inf:
            return towers.ENDLESS
        if not hasattr(self.tokenizer, "add_special_tokens"):
            return None
        return max(1, int(length) - len(self.tokenizer(self._prompt or "")["input_ids"]))

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

    def text_inputs(self, texts: list[Any]) -> dict[str, Any]:
        return self._make_inputs([{"text": self._bound_text(text)} for text in texts])

    def image_vectors(self, inputs: dict[str, Any]) -> Tensor:
        vectors: Tensor = self._model(inputs, **self._arguments)["sentence_embedding"]
        return vectors.float()

    text_vectors = image_vectors

    def _make_inputs(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        # items are dicts, because the model would download a bare text that is a URL
        inputs: dict[str, Any] = self._model.preprocess(
            items, prompt=self._prompt, **self._arguments, **self._processing
        )
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


def _load_model(source: hub.Origin, params: SentenceTransformersParams) -> Any:
    library = _import_library()
    towers.silence_transformers()
    precision = source.precision_of(params)
    dtype = getattr(torch, precision)
    arguments: dict[str, Any] = {"device": str(pick_device()), "local_files_only": True}
    if _is_model2vec(source):
        if params.options is not None:
            raise UserError("options are of networks, and model2vec's embeddings are none")
        modules = _load_model2vec(source)
        model = library.SentenceTransformer(modules=modules, **arguments)
    else:
        backend = params.options.backend if params.options else "torch"
        loading = {"dtype": dtype, "use_safetensors": True}
        if backend != "torch":
            if precision != "float32":
                raise UserError(f"backend {backend} has its own precision; leave precision out")
            loading = {}
        model = library.SentenceTransformer(
            str(source.folder),
            trust_remote_code=params.trust_remote_code,
            backend=backend,
            model_kwargs=loading | params.model_options(),
            **arguments,
        )

    for module in model.modules():
        if isinstance(module, _static_embedding()):
            module.to(dtype)
            module.preprocess = partial(_unwrap_texts, module.preprocess)
    return model


def _unwrap_texts(preprocess: Callable[..., Any], inputs: Sequence[Any], **arguments: Any) -> Any:
    """Pass texts to a module that, unlike others, does not read them from `{"text": ...}`."""
    return preprocess([item["text"] for item in inputs], **arguments)


def _static_embedding() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules.StaticEmbedding


def _load_model2vec(source: hub.Origin) -> list[Any]:
    """Load a folder of model2vec that sentence-transformers cannot, for want of modules.json."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    embedding = _static_embedding().load(str(source.folder), local_files_only=True)
    config = hub.read_model_json(str(source.folder), source.folder / CONFIG)
    return [embedding, Normalize()] if config.get("normalize") else [embedding]


def _is_model2vec(source: hub.Origin) -> bool:
    config = hub.read_model_json(f"{source.folder}", source.folder / CONFIG)
    has_modules = (source.folder / MODULES).is_file()
    return not has_modules and config.get("model_type") == "model2vec"


def _text_module(model: Any, task: str) -> Any:
    """Return the module that reads texts."""
    first = model[0]
    if not hasattr(first, "sub_modules"):
        return first
    # a Router may read queries and documents by different networks
    route = first._resolve_route(task=task or None, modality="text")
    return first.sub_modules[route][0]


def _limit_length(reader: Any, max_tokens: int, config: Any) -> float | None:
    """Limit the tokens that a module reads; return how many it reads, None if unknown."""
    config = getattr(reader, "config", config)
    length: float | None = getattr(reader, "max_seq_length", None)
    tokenizer = getattr(reader, "tokenizer", None)
    if length == math.inf or tokenizer is None or config is None:
        return length
    most = min(max_tokens, towers.longest_input(tokenizer, config))
    reader.max_seq_length = min(most, length or most)
    return int(reader.max_seq_length)


def find_model(where: str, params: SentenceTransformersParams) -> hub.Origin:
    _import_library()
    source = hub.find_model(
        where,
        params,
        SENTENCE_TRANSFORMERS_LIBRARY,
        [hub.WANTED["sentence-transformers"], *["*.py"] * params.trust_remote_code],
    )
    source = source.restrict_to(where, params, _read_modalities(where, params, source))
    return replace(
        source,
        prompt=_choose_prompt(where, source) if params.prompt == AUTO else params.prompt,
        task=_choose_task(where, source) if params.task is None else params.task,
    )


def _choose_prompt(where: str, source: hub.Origin) -> str:
    """Return the model's own prompt of documents, otherwise its default one, otherwise none."""
    config = hub.read_model_json(f"'{where}.model'", source.folder / STORED_PROMPTS)
    prompts = config.get("prompts")
    if not isinstance(prompts, dict):
        return ""
    # the library stores empty prompts under names that authors left out
    for name in (*DOCUMENT_PROMPTS, config.get("default_prompt_name")):
        if prompt := prompts.get(name):
            return str(prompt)
    return ""


def _choose_task(where: str, source: hub.Origin) -> str:
    """Return DOCUMENT if a Router has a route for it, or a module a length or a template."""
    for path in source.files():
        takes_task = False
        if path.suffix == ".json" and path.name in CONFIGS:
            config = hub.read_model_json(f"'{where}.model'", path)
            takes_task = config.get("document_length") is not None or _has_document_route(config)
        elif path.name == "chat_template.jinja":
            takes_task = TASK_IN_TEMPLATE.search(path.read_text(errors="replace")) is not None
        if takes_task:
            return DOCUMENT
    return ""


def _has_document_route(router: dict[str, Any]) -> bool:
    parameters = router.get("parameters")
    mapped = parameters.get("route_mappings") if isinstance(parameters, dict) else None
    routes: list[str] = []
    for named in (router.get("structure"), mapped):
        if isinstance(named, dict):
            routes += named
    # a route is `document`, or a tuple of task and modality as text
    return any(route == DOCUMENT or f"('{DOCUMENT}'," in route for route in routes)


SENTENCES = Spec(
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
