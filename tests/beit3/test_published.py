"""Initialisation from published files and from MiniLM's words, as parameters name them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shop import pretraining
from shop.pretraining import digests, run, shop
from torch import Tensor

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import checkpoints, published, tokenizer, vqkd
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config
from alignrec.pipeline.beit3.encoders import BEiT3Items
from alignrec.pipeline.beit3.minilm import WORDS, find_word_ids, initialise_words, load_minilm, load_tokenizer
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.beit3.pretrain import resume
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from benchmarks import _official

PIECES = 50
SHAPE = replace(BEIT3_CONFIGS["small"], vocab=58, positions=40)  # as published: eight rows more than pieces


def nothing(address: str, target: Path) -> None:
    raise AssertionError(f"nothing should be fetched, {address} was")


def write(path: Path, network: torch.nn.Module) -> str:
    _official.save(network.state_dict(), path)
    return str(path)


@pytest.fixture
def obtain(tmp_path: Path) -> published.Obtain:
    return lambda address: checkpoints.obtain_file(address, tmp_path / "published", nothing)


def network(params: Pretrain, obtain: published.Obtain, codes: int) -> tuple[BEiT3, list[str]]:
    return published.start_network(params, published.read_start(params, obtain, PIECES), codes, PIECES, positions=4)


def test_a_network_goes_on_from_published_weights(tmp_path: Path, obtain: published.Obtain) -> None:
    torch.manual_seed(1)
    source = BEiT3(SHAPE)
    params = Pretrain(size="small", init=write(tmp_path / "beit3.pth", source))
    beit3, lines = network(params, obtain, 7)
    assert beit3.config == replace(SHAPE, codes=7, mlm=True)
    for name, tensor in source.state_dict().items():
        assert torch.equal(beit3.state_dict()[name], tensor), name
    assert lines == ["mim_head.bias: new", "mim_head.weight: new", "mlm_head.bias: new", "mlm_head.weight: new"]


def test_heads_go_on_too_and_others_are_reported(tmp_path: Path, obtain: published.Obtain) -> None:
    source = BEiT3(replace(SHAPE, codes=7, mlm=True))
    params = Pretrain(size="small", init=write(tmp_path / "beit3.pth", source))
    beit3, lines = network(params, obtain, 7)
    assert lines == []
    assert torch.equal(beit3.state_dict()["mim_head.weight"], source.state_dict()["mim_head.weight"])
    _, lines = network(params, obtain, 9)
    assert "mim_head.weight: not used: predicts 7 visual tokens, the network 9" in lines
    assert "mim_head.weight: new" in lines


def test_visual_tokens_are_those_of_the_tokenizer_one_for_each_patch(tmp_path: Path, obtain: published.Obtain) -> None:
    torch.manual_seed(2)
    c = BEIT3_CONFIGS["small"]
    tokenizer = vqkd.VQKD(vqkd.VQKDConfig(16 * c.grid, 16, 64, 2, 1, 30, 4))
    torch.nn.init.normal_(tokenizer.encoder.pos_embed)
    params = Pretrain(size="small", vqkd=write(tmp_path / "vqkd.pth", tokenizer))
    images = np.random.default_rng(0).integers(0, 256, (70, c.image, c.image, 3), np.uint8)
    tokens, n = published.predict_visual_tokens(params, obtain, images, c, torch.device("cpu"))
    assert n == 30
    assert tokens.shape == (70, c.patches)
    assert len(np.unique(tokens)) > 5
    pixels = torch.from_numpy(images[69:]).permute(0, 3, 1, 2) / 127.5 - 1
    assert tokens[69].tolist() == tokenizer.tokens(pixels)[0].tolist()  # the last of the second batch


def test_text_positions_are_interpolated_for_longer_texts(tmp_path: Path, obtain: published.Obtain) -> None:
    torch.manual_seed(1)
    source = BEiT3(SHAPE)
    params = Pretrain(size="small", init=write(tmp_path / "beit3.pth", source))
    beit3, _ = published.start_network(params, published.read_start(params, obtain, PIECES), 7, PIECES, 78)
    before, after = (n.state_dict()[published.TEXT_POSITIONS] for n in (source, beit3))
    assert beit3.config.positions == len(after) == 78
    assert torch.equal(after[:3], before[:3]), "two unused rows, and the first place"
    assert torch.equal(after[-1], before[-1])
    between = np.interp(np.arange(76) * 37 / 75, np.arange(38), before[2:, 5].numpy())
    np.testing.assert_allclose(after[2:, 5].numpy(), between, atol=1e-6)


def test_beit3_official_is_cls_of_the_weights_before_they_were_trained_here(tmp_path: Path) -> None:
    """The baseline without pre-training on the catalogue, next to the network after it."""
    spm = tokenizer.train_model([f"a {c} {t}" for c in pretraining.COLOURS for t in pretraining.THINGS], 60)
    assert spm is not None
    (tmp_path / "beit3.spm").write_bytes(spm)
    torch.manual_seed(1)
    source = BEiT3(replace(SHAPE, vocab=tokenizer.Tokenizer(spm).vocab + 8, positions=130, codes=9, mlm=True))
    weights = write(tmp_path / "beit3.pth", source)
    pinned = f"{weights}#sha256={io.sha256(Path(weights))}"
    given = {"init": pinned, "tokenizer": str(tmp_path / "beit3.spm"), "steps": 3}
    pretraining.shop(tmp_path, **given)
    pretraining.run(tmp_path)
    layout = Layout(tmp_path, "toy")
    trained, official = pretraining.features(tmp_path, "beit3-raw", "beit3-official").values()
    assert np.abs(trained - official).max() > 1e-3
    kept = load_file(layout.encoder.official)
    assert not any(name.startswith(("mim_head", "mlm_head")) for name in kept)
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in kept.items())
    table = io.read_table(layout.items, schemas.ITEMS, ["text"])
    row = next(i for i, text in enumerate(table["text"].to_pylist()) if text and i % 10 == 0)  # it has no image
    plain = BEiT3Items(source.eval(), tokenizer.Tokenizer(spm), None)
    expected = plain.encode(plain.prepare(None, [table["text"][row].as_py()]))
    np.testing.assert_allclose(official[row], expected[0].numpy(), atol=1e-5)


# --- word embeddings from MiniLM


SURFACES = [
    *("<s>", "<pad>", "</s>", "<unk>", "▁", "▁red", "▁Blue", "▁green", "▁yellow", "▁circle", "▁square", "▁monday"),
    *("▁tuesday", "▁unread", "ing", "qz", "!", "▁caf", "é", "😀", "▁", "<mask>"),
]


def narrow(width: int, seed: int = 0) -> BEiT3:
    torch.manual_seed(seed)
    return BEiT3(
        BEiT3Config(image=8, patch=4, vocab=len(SURFACES), width=width, layers=1, heads=2, ffn=32, positions=8)
    )


def table(beit3: BEiT3) -> Tensor:
    return beit3.beit3.text_embed.weight.detach()


def test_a_piece_starts_from_the_words_of_its_surface() -> None:
    ids = find_word_ids(SURFACES)
    words = {p: [load_tokenizer().id_to_token(i) for i in own] for p, own in zip(SURFACES, ids, strict=True)}
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


def test_as_wide_as_minilm_words_are_its_own_up_to_one_factor() -> None:
    beit3, before = narrow(384), table(narrow(384))
    line = initialise_words(beit3, SURFACES)
    after, words, vocabulary = table(beit3), load_minilm()[WORDS], load_tokenizer().get_vocab()
    factor = after[SURFACES.index("▁red")] / words[vocabulary["red"]]
    torch.testing.assert_close(factor, factor[:1].expand(384))
    pieces = [vocabulary[piece] for piece in ("un", "##rea", "##d")]
    torch.testing.assert_close(after[SURFACES.index("▁unread")], words[pieces].mean(0) * factor[0])
    known = torch.tensor([p not in ("▁", "😀") for p in SURFACES])
    assert torch.equal(after[~known], before[~known]), "pieces without a word stay as they were initialised"
    torch.testing.assert_close(after[known].square().sum(1).mean(), before.square().sum(1).mean())
    assert line == f"beit3.text_embed.weight: 19 of {len(SURFACES)} pieces start as MiniLM's words"


def key_of_training(root: Path) -> bytes:
    """Begin to pre-train on the shop; return the key of the folder."""
    run = Run("pretrain", "toy", load(root / "params.yaml"), root)
    resume(run)
    return (run.folder / io.KEY).read_bytes()


def test_another_file_behind_a_pin_is_another_training(tmp_path: Path) -> None:
    weights = tmp_path / "beit3.pth"
    shop(tmp_path, init=f"{weights}#sha256={'0' * 64}")
    weights.write_bytes(b"one")
    first = key_of_training(tmp_path)
    weights.write_bytes(b"another")
    assert key_of_training(tmp_path) != first


def test_another_release_of_minilm_is_another_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)
    words = key_of_training(tmp_path)
    monkeypatch.setattr(
        "alignrec.pipeline.beit3.pretrain.installed_versions", lambda packages: dict.fromkeys(packages, "9.9")
    )
    assert key_of_training(tmp_path) != words


def test_the_stage_starts_from_them_and_says_so(tmp_path: Path) -> None:
    for name in "ab":
        shop(tmp_path / name, steps=0)
    records = [run(tmp_path / name) for name in "ab"]
    assert "pieces start as MiniLM's words" in records[0]["init"][0]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
