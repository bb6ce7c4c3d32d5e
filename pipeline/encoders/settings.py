"""Settings of kinds of encoders, which are checked before torch is loaded."""

from typing import Annotated, Literal

from pydantic import Field

from alignrec.pipeline.encoders.hub import Adjustable, Options
from alignrec.pipeline.encoders.params import MOST_CHUNKS
from alignrec.pipeline.runtime.section import MAX_COUNT, Positive, Section, Width

AUTO = "auto"  # prompt of the model's own
Join = Literal["mean", "concat"]
Pooling = Literal["mean", "cls", "last"]
CHANNELS = (16, 24, 40, 80, 112, 192, 320)  # output channels of each stage of `cnn`


class Chunked(Section):
    """Settings shared by kinds that read long texts in chunks."""

    chunks: Positive = MOST_CHUNKS
    """maximum chunks per text, cut between words; their vectors are averaged, weighted by tokens"""


class OfHub(Adjustable, Chunked):
    """Settings of kinds that load a repository of the Hub, or a folder laid out like one."""

    max_tokens: Annotated[int, Field(ge=3, le=MAX_COUNT)] = 512
    """tokens per pass, at most the network's own limit; chats and passes over both text and image
    are cut there"""
    dim: Width | None = None
    """leading columns of each vector to keep, for networks trained with Matryoshka losses"""
    trust_remote_code: bool = False
    """whether to run Python code that the model ships, with all your permissions"""


class HuggingFaceParams(OfHub):
    join: Join = "mean"
    """combination of the vectors of image and text, each of length 1"""
    prompt: str = ""
    """prefix of every text"""
    pooling: Pooling | None = None
    """vector of a text: the mean of its tokens, the first (cls) or the last; by default last for
    decoders, otherwise mean"""


class MiniLMParams(Chunked):
    max_tokens: Annotated[int, Field(ge=3, le=MAX_COUNT)] = 128
    """tokens per pass, at most LONGEST"""


class SentenceTransformersOptions(Options):
    backend: Literal["torch", "onnx", "openvino"] = "torch"
    """library that runs the network; onnx and openvino need their packages"""


class SentenceTransformersParams(OfHub):
    join: Literal["auto", "fused", "mean", "concat"] = "auto"
    """combination of image and text: in one pass (fused), or mean or concatenation of their
    vectors, each of length 1.
    auto: fused if the network can, otherwise mean"""
    prompt: str = AUTO
    """instruction before every text. auto: of the model's own prompts document, passage or corpus,
    otherwise its default one; empty: none"""
    task: str | None = None
    """task that is named to the model's modules, such as a Router; by default document where they
    have a use for it; empty: none"""
    options: SentenceTransformersOptions | None = None
    """arguments that are passed to the library"""

    def resolve_auto(self) -> str:
        if self.options and self.options.backend != "torch":
            return "float32"  # other libraries have their own precision
        return super().resolve_auto()


class OpenClipParams(Adjustable, Chunked):
    join: Join = "mean"
    """combination of the vectors of image and text, each of length 1"""


class CNNParams(Section):
    stage: Annotated[int, Field(ge=1, le=len(CHANNELS))] | None = None
    """stage whose mean and standard deviation per channel form the vector; none: the pooled last
    layer"""


class NoSettings(Section):
    """Settings of kinds without any."""


class TfidfParams(Section):
    width: Width = 512
    """maximum number of components, further limited by the number of terms and texts"""


SETTINGS: dict[str, type[Section]] = {
    "minilm": MiniLMParams,
    "tfidf": TfidfParams,
    "cnn": CNNParams,
    "descriptors": NoSettings,
    "minilm-cnn": MiniLMParams,
    "huggingface": HuggingFaceParams,
    "sentence-transformers": SentenceTransformersParams,
    "open_clip": OpenClipParams,
    "timm": Adjustable,
}  # kind -> class of its settings, the one of its Spec
