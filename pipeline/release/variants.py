"""Vectors of the same items by one encoder with other prompts and poolings.

n items, B of a batch, T tokens, W width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from alignrec.pipeline.encoders import hub
from alignrec.pipeline.encoders.registry import Encoder, Encoders, find_network, settings_of
from alignrec.pipeline.encoders.sentence_transformers import STORED_PROMPTS
from alignrec.pipeline.encoders.towers import Towers, open_images

BATCH_SIZE = 16
OWN_POOLING = "its own"  # the encoder's usual pooling
TEXT, IMAGE, BOTH = "text", "image", "both"


@dataclass(frozen=True)
class Content:
    """Content of n items; None for a modality that they lack or the encoder does not read."""

    texts: list[str] | None
    images: list[bytes] | None

    def batches(self) -> Iterator["Content"]:
        for start in range(0, len(self.texts or self.images or ()), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            yield Content(self.texts and self.texts[rows], self.images and self.images[rows])


class EncodedPart(NamedTuple):
    """Vectors of the items' texts, of their images, or of both in one pass."""

    reads: str  # TEXT, IMAGE or BOTH
    pooling: str
    prompt: str  # empty: none
    vectors: np.ndarray  # float32 [n, W]


class TokenOutput(NamedTuple):
    """What a network of transformers returned for a batch."""

    hidden: Tensor  # float32 [B, T, W]
    mask: Tensor | None  # int64 [B, T]; None: all tokens are real
    pooler: Tensor | None  # float32 [B, W]

    def pool(self) -> dict[str, Tensor]:
        """Return the usual poolings, float32 [B, W] each. Rows may be padded on either side."""
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.hidden.shape[:2], dtype=torch.int64, device=self.hidden.device)
        rows = torch.arange(len(mask), device=mask.device)
        place = torch.arange(mask.shape[1], device=mask.device)
        is_real = mask.unsqueeze(2).to(self.hidden.dtype)

        pooled = {
            "mean": (self.hidden * is_real).sum(1) / is_real.sum(1),
            "cls": self.hidden[rows, mask.argmax(1)],
        }
        if self.mask is not None:
            pooled["last"] = self.hidden[rows, (mask * place).argmax(1)]
        if self.pooler is not None:
            pooled["pooler"] = self.pooler.flatten(1)
        return pooled


def encode_variants(
    encoders: Encoders, name: str, folder: Path, content: Content
) -> list[EncodedPart]:
    """Encode items with every prompt and pooling; raises UserError like `find_network`."""
    parts: list[EncodedPart] = []
    for prompt, variant in list_prompts(encoders, name, folder):
        network = find_network(variant, name, folder)
        encoder = network.load()
        with network.name_errors():
            for reads in list_reads(encoder, content):
                # a prompt precedes texts, so images are encoded once
                if reads != IMAGE or not any(part.reads == IMAGE for part in parts):
                    parts += encode_part(encoder, reads, prompt, content)
    return parts


def list_prompts(encoders: Encoders, name: str, folder: Path) -> list[tuple[str, Encoders]]:
    """Return each prompt with the section `encoders` that sets it: the encoder's own first, then
    none, then those stored with the model.
    """
    origin = find_network(encoders, name, folder).origin
    if origin is None or "prompt" not in type(settings_of(encoders, name)).model_fields:
        return [("", encoders)]

    config = hub.read_model_json(f"'encoders.{name}.model'", origin.folder / STORED_PROMPTS)
    stored = config.get("prompts")
    prompts = [origin.prompt, ""]
    if isinstance(stored, dict):
        prompts += [prompt for prompt in stored.values() if isinstance(prompt, str)]

    variants: list[tuple[str, Encoders]] = []
    for prompt in dict.fromkeys(prompts):
        definition = {**encoders[name], "prompt": prompt}
        variants.append((prompt, {**encoders, name: definition}))
    return variants


def list_reads(encoder: Encoder, content: Content) -> list[str]:
    """Return what to encode: each modality, and both if the encoder reads them in one pass."""
    reads = []
    if content.texts is not None:
        reads.append(TEXT)
    if content.images is not None:
        reads.append(IMAGE)
    if len(reads) == 2 and reads_both_at_once(encoder, content):
        reads.append(BOTH)
    return reads


def reads_both_at_once(encoder: Encoder, content: Content) -> bool:
    if not isinstance(encoder, Towers):
        return True  # its way to join them is unknown
    first = next(content.batches())
    return not encoder.prepare(first.images, first.texts).text


def encode_part(encoder: Encoder, reads: str, prompt: str, content: Content) -> list[EncodedPart]:
    """Encode one or both modalities of all items with every pooling, the encoder's own last."""
    vectors: dict[str, list[np.ndarray]] = {}
    for batch in content.batches():
        with keep_tokens(encoder) as outputs, torch.inference_mode():
            own = encode_batch(encoder, reads, batch)
        pooled = outputs[0].pool() if len(outputs) == 1 else {}
        for pooling, rows in (pooled | {OWN_POOLING: own}).items():
            vectors.setdefault(pooling, []).append(rows.float().cpu().numpy())

    given = "" if reads == IMAGE else prompt
    return [
        EncodedPart(reads, pooling, given, np.concatenate(blocks))
        for pooling, blocks in vectors.items()
    ]


def encode_batch(encoder: Encoder, reads: str, batch: Content) -> Tensor:
    """Return the vectors of a batch, float32 [B, W], before towers scale and join them."""
    images = None if reads == TEXT else batch.images
    texts = None if reads == IMAGE else batch.texts
    if reads == BOTH or not isinstance(encoder, Towers):
        return encoder.encode(encoder.prepare(images, texts))
    if reads == TEXT:
        return encoder.text_vectors(encoder.send(encoder.text_inputs(texts or [])))
    return encoder.image_vectors(encoder.send(encoder.image_inputs(open_images(images or []))))


@contextmanager
def keep_tokens(encoder: Encoder) -> Iterator[list[TokenOutput]]:
    """Yield a list that fills with what the encoder's network of transformers returns, if any."""
    outputs: list[TokenOutput] = []

    def keep(module: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
        if isinstance(output, dict) and "token_embeddings" in output:  # of sentence-transformers
            hidden = output["token_embeddings"]
            mask = output.get("attention_mask")
            pooler = None
        else:
            hidden = getattr(output, "last_hidden_state", None)
            mask = named.get("attention_mask")
            pooler = getattr(output, "pooler_output", None)

        # those of convolutional networks are [B, W, H, W'], and unpadded texts are one long row
        if hidden is None or hidden.ndim != 3 or (mask is not None and len(mask) != len(hidden)):
            return
        if pooler is not None:
            pooler = pooler.float()
        outputs.append(TokenOutput(hidden.float(), mask, pooler))

    module = find_token_module(encoder)
    if module is None:
        yield outputs
        return
    hook = module.register_forward_hook(keep, with_kwargs=True)
    try:
        yield outputs
    finally:
        hook.remove()


def find_token_module(encoder: Encoder) -> nn.Module | None:
    """Return the module that makes an encoder's tokens: a network of transformers, or the first
    module of sentence-transformers, which bypasses hooks of its network.
    """
    from transformers import PreTrainedModel  # takes seconds

    for value in vars(encoder).values():
        if isinstance(value, PreTrainedModel):
            return value
        if isinstance(value, nn.Sequential):
            return value[0]
    return None
