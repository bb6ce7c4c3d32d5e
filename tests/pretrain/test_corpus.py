"""Masks of a batch, and parts of texts."""

import numpy as np
import pytest

from alignrec.pipeline.pretrain import corpus
from alignrec.pipeline.pretrain.corpus import Corpus, Rates


@pytest.mark.parametrize(("grid", "share"), [(14, 0.4), (4, 0.4), (6, 0.75), (2, 0.5), (5, 0.0), (5, 1.0), (1, 1.0)])
def test_every_image_has_exactly_the_share_masked(grid: int, share: float) -> None:
    masks = corpus.mask_patches(grid * grid, share, corpus.item_generators(np.arange(40), 3))
    assert set(masks.sum(axis=1)) == {round(share * grid * grid)}


def test_pieces_are_masked_at_the_rate_and_special_ids_never() -> None:
    ids = np.array([[0, 5, 6, 7, 8, 2], [0, 5, 2, 1, 1, 1], [0, 2, 1, 1, 1, 1]])
    for seed in range(20):
        mask = corpus.mask_pieces(ids, np.array([0.5, 0.15, 0.5]), corpus.item_generators(np.arange(3), seed))
        assert mask.sum(axis=1).tolist() == [2, 1, 0]
        assert (ids[mask] > 3).all()


def test_absent_and_hidden_modalities_are_not_predicted() -> None:
    n = 400
    ids = np.tile([0, 5, 6, 7, 2], (n, 1))
    has_image, has_text = np.arange(n) % 4 != 0, np.arange(n) % 4 != 1
    patches, pieces, no_image, no_text = corpus.draw_masks(
        ids, has_image, has_text, 4, Rates(0.4, 0.5, 0.15, 0.2), corpus.item_generators(np.arange(n), 1)
    )
    assert no_image[~has_image].all()
    assert no_text[~has_text].all()
    assert not (no_image & no_text).any()
    assert not patches[no_image].any()
    assert not pieces[no_text].any()
    pairs = has_image & has_text
    assert 0.1 < no_image[pairs].mean() < 0.3
    assert set(pieces[pairs & ~no_text & ~no_image].sum(axis=1)) == {2}
    assert set(pieces[no_image].sum(axis=1)) == {1}


def test_what_is_masked_of_an_item_depends_on_the_item_and_the_seed_alone() -> None:
    """The mask does not depend on the batch, so parts, processes and interruptions change nothing."""
    items, rates = np.array([3, 8, 5, 9]), Rates(0.4, 0.5, 0.15, 0.2)
    ids = np.array([[0, 5, 6, 7, 8, 2], [0, 5, 6, 2, 1, 1], [0, 9, 9, 9, 2, 1], [0, 4, 4, 4, 4, 2]])
    both = np.ones(4, bool)
    patches, pieces, no_image, _ = corpus.draw_masks(ids, both, both, 4, rates, corpus.item_generators(items, 7))
    part = corpus.draw_masks(ids[1:3, :5], both[1:3], both[1:3], 4, rates, corpus.item_generators(items[1:3], 7))
    assert (part[0] == patches[1:3]).all()
    assert (part[1] == pieces[1:3, :5]).all()
    assert (part[2] == no_image[1:3]).all()
    other = corpus.draw_masks(ids, both, both, 4, rates, corpus.item_generators(items, 8))
    assert (other[0] != patches).any()


def _long_texts() -> Corpus:
    """Return three items: a text of three parts, no text, and one part with a truncated rest."""
    parts = [np.array([0, *range(start, start + n), 2]) for start, n in ((10, 4), (14, 4), (18, 3), (0, 0), (30, 4))]
    return Corpus(parts, np.array([0, 3, 4, 5]), np.array([11, 0, 8]), np.array([0, 1, -1]), np.zeros((2, 8, 8, 3)))


def test_each_step_draws_a_part_of_a_long_text_by_seed_and_item_alone() -> None:
    texts, items = _long_texts(), np.arange(3)
    drawn = np.array([texts.draw_parts(items, seed) for seed in range(60)])
    assert [set(column) for column in drawn.T.tolist()] == [{0, 1, 2}, {3}, {4}]
    assert (texts.draw_parts(items[[2, 0]], 7) == drawn[7][[2, 0]]).all()


def test_all_parts_of_items_weigh_by_their_tokens() -> None:
    parts, owner, share = _long_texts().all_parts(np.array([2, 0, 1]))
    assert parts.tolist() == [4, 0, 1, 2, 3]
    assert owner.tolist() == [0, 1, 1, 1, 2]
    np.testing.assert_allclose(share, [1, 4 / 11, 4 / 11, 3 / 11, 1], rtol=1e-6)


def test_the_share_that_training_reads_grows_with_its_passes_up_to_what_is_not_cut() -> None:
    texts = _long_texts()
    assert texts.share_read(1) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert texts.share_read(2) == pytest.approx((5 / 9 + 1 / 2) / 2)
    assert texts.share_read(np.inf) == pytest.approx((1 + 1 / 2) / 2)


def test_short_texts_are_one_part_and_long_ones_parts_of_bounded_size() -> None:
    items = np.array([7, 3, 9, 1])
    assert [part.tolist() for part in corpus.micro_batches(items, np.array([9, 128, 5, 60]))] == [[7, 3, 9, 1]]
    lengths = np.array([500, 20, 129, 128])
    parts = corpus.micro_batches(items, lengths)
    assert [part.tolist() for part in parts] == [[3, 1, 9], [7]]
    assert all(len(part) * lengths[np.isin(items, part)].max() <= 4 * corpus.TOKENS for part in parts)
    assert [len(part) for part in corpus.micro_batches(items, np.array([900, 900, 900, 900]), least=2)] == [2, 2]
    assert [len(part) for part in corpus.micro_batches(items[:3], np.array([900, 900, 900]), least=2)] == [3]
    assert [part.tolist() for part in corpus.micro_batches(items[:0], lengths[:0])] == [[]]
