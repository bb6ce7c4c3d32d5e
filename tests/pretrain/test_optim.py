"""The optimiser of pre-training."""

import pytest
from pretraining import MASK, UNTAUGHT, network

from pipeline.pretrain import loop
from pipeline.pretrain.losses import PretrainingModel
from pipeline.pretrain.params import Pretrain


def _groups(layer_decay: float, init: str | None = None) -> dict[str, dict[str, float]]:
    params = Pretrain(**UNTAUGHT, lr=1.0, layer_decay=layer_decay, init=init)
    model = PretrainingModel(network(), MASK, 4)
    optimizer = loop.adamw(model, 2, params)
    loop.set_rate(optimizer, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert sorted(groups) == sorted(names.values())
    return groups


def test_layers_nearer_the_input_move_less() -> None:
    groups = _groups(0.1, init="weights.pth")
    for name, rate in {
        "network.beit3.text_embed.weight": 0.0005,
        "network.beit3.vision_embed.proj.weight": 0.0005,
        "network.beit3.encoder.embed_positions.A.weight": 0.0005,
        "network.beit3.encoder.layers.0.ffn.A.fc1.weight": 0.005,
        "network.beit3.encoder.layers.1.self_attn.q_proj.B.bias": 0.05,
        "network.beit3.encoder.layer_norm.A.weight": 0.5,
        "network.mlm_head.weight": 0.5,
        "teacher.weight": 0.5,
    }.items():
        assert groups[name]["lr"] == pytest.approx(rate), name


def test_pieces_of_our_own_vocabulary_alone_have_another_rate() -> None:
    groups = _groups(Pretrain(size="small").layer_decay)
    assert groups.pop("network.beit3.text_embed.weight")["lr"] == 5
    assert {group["lr"] for group in groups.values()} == {0.5}


def test_matrices_decay_and_nothing_else() -> None:
    groups = _groups(0.9)
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.05}
    assert "network.beit3.encoder.layers.0.ffn.A.fc1.weight" in decayed
    assert "network.beit3.vision_embed.proj.weight" in decayed
    assert not any(name.endswith(("bias", "cls_token")) or "embed_positions" in name for name in decayed)
    assert all("norm" not in name and "_ln" not in name for name in decayed)
