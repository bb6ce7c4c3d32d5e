"""Initial word embeddings from MiniLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretraining import digests, run, shop
from torch import Tensor

from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import minilm as minilm_of
from alignrec.pipeline.beit3.config import Config
from alignrec.pipeline.beit3.mini import WORDS
from alignrec.pipeline.beit3.minilm import MiniLM
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.pretrain import published
from alignrec.pipeline.pretrain.train import resume

PIECES = [
    *("<s>", "<pad>", "</s>", "<unk>", "▁", "▁red", "▁Blue", "▁green", "▁yellow", "▁circle", "▁square", "▁monday"),
    *("▁tuesday", "▁unread", "ing", "qz", "!", "▁caf", "é", "😀", "▁", "<mask>"),
]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return minilm_of.load()


def network(width: int, seed: int = 0) -> BEiT3:
    torch.manual_seed(seed)
    return BEiT3(Config(image=8, patch=4, vocab=len(PIECES), width=width, layers=1, heads=2, ffn=32, positions=8))


def table(beit3: BEiT3) -> Tensor:
    return beit3.beit3.text_embed.weight.detach()


def test_a_piece_starts_from_the_words_of_its_surface(model: MiniLM) -> None:
    ids = published.word_ids(PIECES, model.tokenizer)
    words = {p: model.tokenizer.convert_ids_to_tokens(own) for p, own in zip(PIECES, ids, strict=True)}
    assert [words[p] for p in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [
        ["[CLS]"], ["[PAD]"], ["[SEP]"], ["[UNK]"], ["[MASK]"],
    ]  # fmt: skip
    assert words["▁red"] == ["red"]
    assert words["▁Blue"] == ["blue"], "MiniLM knows small letters alone"
    assert words["▁unread"] == ["un", "##rea", "##d"]
    assert words["ing"] == ["##ing"], "inside a word"
    assert words["qz"] == ["q", "##z"], "no continuation of MiniLM's"
    assert words["!"] == ["!"], "MiniLM never saw ##!"
    assert words["😀"] == words["▁"] == []


def test_as_wide_as_minilm_words_are_its_own_up_to_one_factor(model: MiniLM) -> None:
    beit3, before = network(384), table(network(384))
    line = published.start_words(beit3, PIECES, model)
    after, red = table(beit3), model.tensors[WORDS][model.tokenizer.get_vocab()["red"]]
    factor = after[PIECES.index("▁red")] / red
    torch.testing.assert_close(factor, factor[:1].expand(384))
    pieces = model.tokenizer.convert_tokens_to_ids(["un", "##rea", "##d"])
    torch.testing.assert_close(after[PIECES.index("▁unread")], model.tensors[WORDS][pieces].mean(0) * factor[0])
    known = torch.tensor([p not in ("▁", "😀") for p in PIECES])
    assert torch.equal(after[~known], before[~known]), "pieces without a word stay as they were initialised"
    torch.testing.assert_close(after[known].square().sum(1).mean(), before.square().sum(1).mean())
    assert line == f"beit3.text_embed.weight: 19 of {len(PIECES)} pieces start as MiniLM's words"


def test_another_release_of_minilm_is_another_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)

    def begun() -> bytes:
        run = Run("pretrain", "toy", load(tmp_path / "params.yaml"), tmp_path)
        resume(run)
        return (run.folder / io.KEY).read_bytes()

    words = begun()
    monkeypatch.setattr(
        "alignrec.pipeline.pretrain.train.installed_versions", lambda packages: dict.fromkeys(packages, "9.9")
    )
    assert begun() != words


def test_the_stage_starts_from_them_and_says_so(tmp_path: Path) -> None:
    for name in "ab":
        shop(tmp_path / name, steps=0)
    records = [run(tmp_path / name) for name in "ab"]
    assert "pieces start as MiniLM's words" in records[0]["init"][0]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
