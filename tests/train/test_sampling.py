import numpy as np
from shops import interactions, two_tastes

from alignrec.pipeline.interactions.split import contains_keys, load_split, pair_keys
from alignrec.pipeline.train.inputs import Sampler


def test_an_epoch_has_every_pair_once_and_no_negative_that_the_user_has() -> None:
    split = two_tastes()
    users, positives, negatives = Sampler(split).epoch(np.random.default_rng(0))
    taken = pair_keys(split.train, split.n_items)
    assert sorted(users * split.n_items + positives) == taken.tolist()
    assert not contains_keys(taken, users * split.n_items + negatives).any()


def test_negatives_are_uniform_over_what_is_left_of_train_items() -> None:
    split = load_split(interactions([(0, 0, 0), *((1, i, 0) for i in range(1, 5)), (0, 5, 1)]), 2, 7)
    rng = np.random.default_rng(0)
    sampler = Sampler(split)
    drawn = [negative for _ in range(4000) for user, _, negative in sampler.epoch(rng).T if user == 0]
    counts = np.bincount(drawn, minlength=7)
    assert counts[[0, 5, 6]].tolist() == [0, 0, 0]  # own, valid only, never seen
    assert np.abs(counts[1:5] / 4000 - 0.25).max() < 0.03


def test_a_user_who_has_everything_is_left_out() -> None:
    split = load_split(interactions([(0, 0, 0), (0, 1, 0), (1, 0, 0)]), 2, 2)
    users, _, negatives = Sampler(split).epoch(np.random.default_rng(0))
    assert (users.tolist(), negatives.tolist()) == ([1], [1])
