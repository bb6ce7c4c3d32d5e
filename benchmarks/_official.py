"""Write files in the published formats of BEiT3 and BEiT v2, with random weights, for tests and the rehearsal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from torch import Tensor, nn

from alignrec.pipeline.beit3 import vqkd
from alignrec.pipeline.beit3.config import BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.tokenizer import train_model

Network = TypeVar("Network", bound=nn.Module)
# vocabulary of beit3.spm; the text embedding has nine more rows: one that shifts the ids, <mask>, and seven unused
PIECES = 64_001
CODES = 8192  # visual tokens of the published tokenizer, and of the MIM head of beit3_base_patch16_224.pth
LEARNED = 8000  # maximum pieces learned from the texts; the others occur in no text
PRIVATE = 0xE000  # first of Unicode's 6,400 private-use characters


def save(tensors: Mapping[str, Tensor], to: Path | BinaryIO, **beside: object) -> None:
    """Write tensors under the key `model`, as published checkpoints do, next to the entries of `beside`."""
    torch.save({"model": OrderedDict(tensors), **beside}, to)


def beit3(to: Path, shape: BEiT3Config, seed: int = 0) -> None:
    """Write a file like beit3_base_patch16_224.pth: a BEiT3 of `shape` with MIM and MLM heads."""
    whole = replace(
        shape, vocab=BEiT3Config.vocab, positions=BEiT3Config.positions, codes=CODES, mlm=True
    )
    with torch.device("meta"):
        network = BEiT3(whole)
    save(drawn(network, seed).state_dict(), to)


def visual_tokenizer(to: Path, shape: vqkd.VQKDConfig, seed: int = 0) -> None:
    """Write a file like vqkd_encoder_base_decoder_1x768x12_clip-d93179da.pth, with decoder and statistics."""
    with torch.device("meta"):
        encoder, block, head = (
            vqkd.VQKD(shape),
            vqkd.VQKDEncoder(shape).blocks[0],
            nn.Linear(shape.width, shape.width),
        )
    tensors = drawn(encoder, seed).state_dict()
    codebook = nn.functional.normalize(tensors["quantize.embedding.weight"], dim=1)
    counts = torch.ones(shape.codes)
    tensors |= {
        f"decoder.blocks.0.{name}": tensor
        for name, tensor in drawn(block, seed + 1).state_dict().items()
    }
    tensors |= {
        f"decode_task_layer.0.{name}": tensor
        for name, tensor in drawn(head, seed + 2).state_dict().items()
    }
    tensors |= {
        "quantize.embedding.weight": codebook,
        "quantize.embedding.embed_avg": codebook.clone(),
        "quantize.embedding.cluster_size": counts,
        "quantize.embedding.initted": torch.ones(1),
        "quantize.cluster_size": counts.clone(),
    }
    save(tensors, to)


def tokenizer(to: Path, texts: Iterable[str]) -> None:
    """Write a file like beit3.spm with PIECES pieces: some learned from the texts, the rest never occurring."""
    learned = train_model(texts, LEARNED)
    assert learned is not None, "the texts are empty"
    model = ModelProto.FromString(learned)
    kinds = ModelProto.SentencePiece
    lowest = min(piece.score for piece in model.pieces)
    for number in range(PIECES - len(model.pieces)):
        name = chr(PRIVATE + number // 256) + chr(PRIVATE + number % 256)
        model.pieces.append(kinds(piece=name, score=lowest - number, type=kinds.NORMAL))
    model.trainer_spec.vocab_size = len(model.pieces)
    to.write_bytes(model.SerializeToString())


def drawn(network: Network, seed: int) -> Network:
    """Initialise a network on device `meta` from N(0, 0.02²), with norm scales around 1."""
    # the network's own truncated normal initialisation takes a minute at base size
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        scale = float(parameter.ndim == 1 and name.endswith("weight"))
        parameter.data.normal_(scale, 0.02, generator=generator)
    return network
