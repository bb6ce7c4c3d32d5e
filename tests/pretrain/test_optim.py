"""The optimiser of pre-training."""

from pretraining import MASK, UNTAUGHT, network

from pipeline.pretrain import loop
from pipeline.pretrain.losses import PretrainingModel
from pipeline.pretrain.params import Pretrain


def _groups(init: str | None = None) -> dict[str, dict[str, float]]:
    params = Pretrain(**UNTAUGHT, lr=1.0, init=init)
    model = PretrainingModel(network(), MASK, 4)
    optimizer = loop.adamw(model, params)
    loop.set_rate(optimizer, 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert sorted(groups) == sorted(names.values())
    return groups


def test_pieces_of_our_own_vocabulary_alone_have_another_rate() -> None:
    groups = _groups()
    assert groups.pop("network.beit3.text_embed.weight")["lr"] == 5
    assert {group["lr"] for group in groups.values()} == {0.5}
    assert {group["lr"] for group in _groups(init="weights.pth").values()} == {0.5}


def test_matrices_decay_and_nothing_else() -> None:
    groups = _groups()
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.05}
    assert "network.beit3.encoder.layers.0.ffn.A.fc1.weight" in decayed
    assert "network.beit3.vision_embed.proj.weight" in decayed
    assert not any(name.endswith(("bias", "cls_token")) or "embed_positions" in name for name in decayed)
    assert all("norm" not in name and "_ln" not in name for name in decayed)
