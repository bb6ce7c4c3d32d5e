"""Three users: drawn by a rule, with what they have, what they bought in test, and what each model recommends."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy

import schemas
from pipeline import io
from pipeline.interactions import split
from pipeline.layout import Layout
from pipeline.report import gather, page, recommended
from pipeline.run import Run, running
from stages import report


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path)


def evidence(layout: Layout) -> gather.Evidence:
    return gather.evidence(Run("report", "shop", toy.PARAMS, layout.root), [])


def test_each_user_has_a_history_the_latest_first_and_lists_without_empty_places(layout: Layout) -> None:
    users = recommended.users(layout, evidence(layout), seed=1)
    assert len(users) == recommended.USERS
    for user in users:
        first = user.number  # the toy's users have items u, u + 1 in train, in this order, and u + 3 in test
        assert user.history == [(first + 1) % toy.ITEMS, first % toy.ITEMS]
        assert user.trained == 2
        assert user.wanted == [(first + 3) % toy.ITEMS]
        assert user.ranked == {"alignrec on beit3": [5, 4, 3], "lightgcn": [5, 4, 3]}


def test_the_draw_depends_on_the_seed_alone_and_takes_every_length(layout: Layout) -> None:
    rng = np.random.default_rng(0)
    length = rng.permutation(np.repeat([1, 5, 20], 10))  # of 30 users
    train = np.repeat(np.arange(30), length)
    pairs = split.Pairs(train.astype(np.int32), np.zeros(len(train), np.int32))
    test = split.Pairs(np.arange(30, dtype=np.int32), np.zeros(30, np.int32))
    parts = split.Split(30, 1, pairs, pairs, test)
    draws = {tuple(recommended.drawn(parts, seed)) for seed in range(20)}
    assert {tuple(length[list(draw)]) for draw in draws} == {(1, 5, 20)}
    assert len(draws) > 1
    assert [*recommended.drawn(parts, 3)] == [*recommended.drawn(parts, 3)]


def test_what_was_bought_in_test_is_framed(layout: Layout) -> None:
    with running("report", "shop", toy.PARAMS, layout.root) as run:
        report.main(run)
    text = (layout.report / "index.html").read_text()
    section = text.split('<section id="users">')[1].split('<section id="results">')[0]
    users = recommended.users(layout, evidence(layout), Run("report", "shop", toy.PARAMS, layout.root).seed("users"))
    hits = sum(item in user.wanted for user in users for items in user.ranked.values() for item in items)
    assert section.count("framed") == hits + sum(len(user.wanted) for user in users)
    assert "<script>" not in section


@pytest.mark.parametrize("missing", ["interactions", "results", "items"])
def test_no_user_is_shown_where_a_stage_is_missing(layout: Layout, missing: str) -> None:
    assert recommended.users(layout, dataclasses.replace(evidence(layout), **{missing: None}), seed=1) == []


def test_images_of_users_items_are_loaded_where_the_page_cannot_search_all(layout: Layout) -> None:
    read = evidence(layout)
    users = recommended.users(layout, read, seed=1)
    tables = [
        io.read_table(path, schemas.IMAGES, ["item_id", "image"]) for path in layout.images.glob("images-*.parquet")
    ]
    view = page.view(read, None, users, tables)
    assert view
    shown = set[int]().union(*(user.shown for user in users))
    assert set(view.images) == {item for item in shown if toy.COLOURS[item]}
