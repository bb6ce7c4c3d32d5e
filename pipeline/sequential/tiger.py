"""A generative recommender after TIGER (Rajput et al. 2023, arXiv 2305.05065): T5 reads and writes semantic IDs.

The encoder reads the codes of the items that a user had, the decoder writes those of the next item, code by code. Two
things differ from the article: there is no token of the user, and a code competes with those alone that exist after the
codes before it, in training as in the search. Letters: b histories, T items of each, D codes of an id, V tokens.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.ops.device import pick
from pipeline.sequential.base import Sequential, trimmed
from pipeline.sequential.params import Generative
from pipeline.sequential.trie import Trie, log_probabilities, search

START, END, CODES = 0, 1, 2
"""tokens: padding, which T5 also begins to write with; what every history ends with; the first code's"""


class Tiger(Sequential):
    """T5 over the codes of items; an item without content has no id, so it is neither read nor recommended."""

    every: ClassVar[bool] = False

    def __init__(self, codes: np.ndarray, rows: np.ndarray, n_items: int, params: Generative) -> None:
        """Build the network with initial values.

        Args:
            codes: int [n, D], each row another one.
            rows: int [n], the items that have them.
        """
        from transformers import T5Config, T5ForConditionalGeneration  # seconds, for which others need not wait

        super().__init__()
        self.beams = params.beams
        sizes = codes.max(0) + 1
        offsets = CODES + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        tokens = np.zeros((n_items + 1, codes.shape[1]), np.int64)  # item i is row i + 1; zeros have no id
        tokens[rows + 1] = codes + offsets
        device = pick()
        self.tokens = torch.from_numpy(tokens).to(device)
        self.trie = Trie(tokens[rows + 1], rows, device)
        self.t5 = T5ForConditionalGeneration(
            T5Config(
                vocab_size=int(offsets[-1] + sizes[-1]), d_model=params.dim, d_kv=params.dim // params.heads,
                d_ff=2 * params.dim, num_layers=params.layers, num_decoder_layers=params.layers,
                num_heads=params.heads, dropout_rate=params.dropout, pad_token_id=START, use_cache=False,
            )
        )  # fmt: skip

    def read(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder reads and which of it counts: int64 [b, T] -> int64 and bool [b, T D + 1]."""
        codes = self.tokens[trimmed(histories) + 1].flatten(1)
        tokens = torch.cat([codes, codes.new_full((len(codes), 1), END)], dim=1)
        return tokens, tokens != START

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean of -log p of each window's last item, as `log_probabilities` has it; an id is needed."""
        windows = windows[self.tokens[windows[:, -1] + 1, 0] != START]
        if not len(windows):
            return 0 * self.t5.shared.weight.sum()
        targets = windows[:, -1]
        tokens, mask = self.read(windows[:, :-1])
        written = self.tokens[targets + 1].roll(1, dims=1)
        written[:, 0] = START
        logits = self.t5(input_ids=tokens, attention_mask=mask, decoder_input_ids=written).logits
        return -log_probabilities(self.trie, logits, targets).mean()

    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Return the K items of highest probability that the beams reach, int64 [b, K]."""
        return search(self.trie, self.following(histories), seen, self.beams, k)

    def following(self, histories: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what maps tokens so far, int64 [b, w, depth], to logits of the next, float [b, w, V]."""
        tokens, mask = self.read(histories)
        states = self.t5.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state

        def logits(written: Tensor) -> Tensor:
            b, w, depth = written.shape
            before = torch.cat([written.new_full((b, w, 1), START), written], dim=2)
            out = self.t5(
                encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=before.flatten(1),
                decoder_attention_mask=apart(w, depth + 1, states).expand(b, -1, -1, -1),
            )  # fmt: skip
            return out.logits.view(b, w, depth + 1, -1)[:, :, -1]

        return logits


def apart(w: int, length: int, like: Tensor) -> Tensor:
    """Return the mask of w beams that stand in one row, none of which sees another: [1, 1, w length, w length].

    T5 knows places by their distance alone, which is the same here as in a row of its own; so what the encoder read is
    attended to once a history, not once a beam.
    """
    causal = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    seen = torch.block_diag(*[causal] * w)
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)[None, None]
