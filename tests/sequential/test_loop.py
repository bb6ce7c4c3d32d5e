"""Training: a cycle is learned, a kill changes nothing, and test is opened at the best valid epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sequential_toys import CODES, CYCLE, cycle, settings

from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result, open_test_ranked
from pipeline.interactions.split import Part
from pipeline.ops.checkpoint import Checkpoint
from pipeline.sequential import judging
from pipeline.sequential.base import Ranker, Sequential
from pipeline.sequential.judging import Popularity
from pipeline.sequential.loop import Fit, fit
from pipeline.sequential.params import Generative
from pipeline.sequential.sasrec import SASRec
from pipeline.sequential.sequences import Sequences
from pipeline.sequential.tiger import Tiger

BOTH = ("sasrec", "tiger")
RULES = Protocol("mmrec", "mmrec", "as imported", "0")


def builder(name: str, params: Generative) -> Callable[[], Sequential]:
    return lambda: SASRec(CYCLE, params) if name == "sasrec" else Tiger(CODES, np.arange(CYCLE), CYCLE, params)


def train(name: str, data: Sequences, seed: int = 0, more: dict[str, Any] | None = None, **keys: Any) -> Fit:
    params = settings(**keys)
    return fit(builder(name, params), data, params, 0.01, seed, **more or {})


def opened(ranker: Ranker, data: Sequences, params: Generative) -> Result:
    def ranked(part: Part) -> np.ndarray:
        return judging.rankings(ranker, data, part, params.length, max(params.ks), torch.device("cpu"))

    return open_test_ranked(ranked, data.split(), judging.protocol(RULES, data, params.length), params.ks)


@pytest.mark.parametrize("name", BOTH)
def test_a_cycle_is_learned_and_popularity_knows_nothing_of_it(name: str) -> None:
    data, params = cycle(), settings()
    assert opened(train(name, data).network, data, params).test.mean["recall", 1] == 1
    assert opened(Popularity(data), data, params).test.mean["recall", 1] < 0.5


@pytest.mark.parametrize("name", BOTH)
def test_killed_and_resumed_is_as_if_undisturbed(name: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise Killed

    data, few = cycle(), {"epochs": 5, "dropout": 0.2}
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 1)
    with pytest.raises(Killed):
        train(name, data, more={"checkpoint": checkpoint, "progress": kill}, **few)
    lines: list[int] = []
    seen = {"checkpoint": checkpoint, "progress": lambda line: lines.append(line["epoch"])}
    resumed, whole = train(name, data, more=seen, **few), train(name, data, **few)
    assert lines == [3, 4]
    assert resumed.history == whole.history
    assert save(dict(state(resumed))) == save(dict(state(whole)))
    again = train(name, data, more={"checkpoint": checkpoint}, **few)  # what is done is not trained again
    assert save(dict(state(again))) == save(dict(state(whole)))


def state(fitted: Fit) -> dict[str, torch.Tensor]:
    return {name: x.detach() for name, x in fitted.network.named_parameters()}


@pytest.mark.parametrize("name", BOTH)
def test_threads_change_nothing_and_another_seed_does(name: str) -> None:
    data = cycle()
    one = train(name, data, epochs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        other = train(name, data, epochs=2)
    finally:
        torch.set_num_threads(threads)
    assert save(state(one)) == save(state(other))
    assert save(state(one)) != save(state(train(name, data, seed=1, epochs=2)))


def test_the_best_epoch_is_kept_and_patience_ends() -> None:
    data = cycle()
    fitted = train("sasrec", data, epochs=60, patience=3)
    curve = [line["valid_ndcg@20"] for line in fitted.history]
    assert fitted.best_epoch == int(np.argmax(curve))
    assert len(curve) == fitted.best_epoch + 4 < 60


def test_a_loss_that_diverges_is_one_line() -> None:
    data, params = cycle(), settings(epochs=3)
    with pytest.raises(UserError, match=r"SASRec: .*epoch \d .*1e\+30"):
        fit(builder("sasrec", params), data, params, 1e30, 0)


def test_the_callers_random_state_is_untouched() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train("sasrec", cycle(), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_protocol_is_its_own_and_depends_on_what_is_read() -> None:
    data = cycle()
    short, long = (judging.protocol(RULES, data, length) for length in (2, 6))
    assert short.name == "strict, leave-one-out"
    assert len({RULES.fingerprint, short.fingerprint, long.fingerprint}) == 3


def test_popularity_ranks_by_train_alone() -> None:
    data, params = cycle(users=5, length=5), settings(ks=[3])
    counts = np.bincount(data.split().train.items, minlength=CYCLE)
    top = opened(Popularity(data), data, params).test.top
    for row, items in enumerate(top):
        had = data.items[data.start[row] : data.start[row + 1] - 1]
        expected = [i for i in np.argsort(-counts, kind="stable") if i not in had][:3]
        assert items.tolist() == expected
