"""Protocols: their fingerprints, what they mask and rank, and the one place that opens test."""

import ast
from dataclasses import replace

import numpy as np
import pytest
import torch
from shop import cold, tastes, toy
from shop.tastes import ITEMS, USERS, two_tastes

from alignrec.pipeline.dataset.split import Pairs, unite_pairs
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.evaluation.held_out import open_test
from alignrec.pipeline.evaluation.protocol import Protocol, hash_questions
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.bpr import BPR
from alignrec.pipeline.models.metrics import evaluate_vectors, topk
from alignrec.pipeline.models.scores import Vectors
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.runtime import code


def test_another_rule_division_split_or_catalogue_is_another_fingerprint() -> None:
    split = two_tastes()
    changed = [replace(split, n_items=split.n_items + 1), replace(split, valid=split.test, test=split.valid)]
    kinds = (("mmrec", "mmrec"), ("strict", "mmrec"), ("mmrec", "user-time"))
    protocols = [Protocol(*kind, "5-core", hash_questions(split)) for kind in kinds]
    protocols += [Protocol("mmrec", "mmrec", "5-core", hash_questions(other)) for other in changed]
    assert len({p.fingerprint for p in protocols}) == 5
    assert len({p.name for p in protocols[:3]}) == 3
    assert Protocol("mmrec", "mmrec", "5-core", hash_questions(split)) == protocols[0]


# --- test is evaluated in one place only, by the rules of the protocol


RULES = Protocol("mmrec", "mmrec", "core", hash_questions(two_tastes()))


def opens_test(call: ast.Call) -> bool:
    """Return whether it calls `evaluate` on anything but the literal "valid"."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    which = [*call.args[3:4], *(k.value for k in call.keywords if k.arg == "which")]
    valid = which and isinstance(which[0], ast.Constant) and which[0].value == "valid"
    return name == "evaluate_vectors" and not valid


def test_one_file_opens_test() -> None:
    opening = []
    for path in (path for folder in ("pipeline", "stages") for path in (code.ROOT / folder).rglob("*.py")):
        text = path.read_text()
        nodes = ast.walk(ast.parse(text)) if "evaluate_vectors" in text else ()
        if any(isinstance(node, ast.Call) and opens_test(node) for node in nodes):
            opening.append(str(path.relative_to(code.ROOT)))
    assert opening == ["pipeline/evaluation/held_out.py"]


def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(USERS, 4)).astype(np.float32), rng.normal(size=(ITEMS, 4)).astype(np.float32)


@pytest.mark.parametrize("rule", ["mmrec", "strict"])
def test_what_is_masked_is_what_the_rule_says_and_the_label_tells_it(rule: str) -> None:
    split, rules = two_tastes(), replace(RULES, rule=rule)
    result = open_test(*vectors(), split, rules, [5, 20])
    assert result.label == {"protocol": rule, "fingerprint": rules.fingerprint}
    train_and_valid = unite_pairs(split.train, split.valid, split.n_items)
    for evaluation, seen in (
        (result.valid, split.train),
        (result.test, split.train if rule == "mmrec" else train_and_valid),
    ):
        user, item = vectors()
        scores = (user @ item.T).astype(float)
        scores[seen.users, seen.items] = -np.inf
        assert np.array_equal(evaluation.top, np.argsort(-scores, axis=1, kind="stable")[:, :20])


def test_a_cutoff_beyond_the_catalogue_is_refused() -> None:
    with pytest.raises(UserError, match=r"51 .* 50"):
        open_test(*vectors(), two_tastes(), RULES, [51])


# --- cold items: two protocols with their candidates, one of which selects epochs


def whole_vectors(n_users: int = cold.USERS, n_items: int = cold.ITEMS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(-2, 3, (n_users, 3)).astype(np.float32), rng.integers(-2, 3, (n_items, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_candidates_alone_are_ranked_as_when_all_others_score_nothing(kind: object) -> None:
    user, item = whole_vectors(8, 30)
    candidates = np.array([1, 2, 5, 7, 11, 20, 28], np.int32)
    seen = Pairs(np.array([0, 0, 3], np.int32), np.array([2, 3, 28], np.int32))
    scores = (user @ item.T).astype(float)
    scores[seen.users, seen.items] = -np.inf
    scores[:, np.setdiff1d(np.arange(30), candidates)] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    expected = np.where(np.take_along_axis(scores, expected, 1) > -np.inf, expected, -1)
    both: tuple[Vectors, Vectors] = (kind(user), kind(item))  # type: ignore[operator]
    actual = topk(*both, 7, seen, candidates=candidates)
    assert np.array_equal(actual, expected)
    assert actual.dtype == np.int32
    assert np.array_equal(topk(*both, 7, seen, np.array([3, 5]), candidates), expected[[3, 5]])
    with pytest.raises(UserError, match=r"8 .* 7"):
        topk(*both, 8, seen, candidates=candidates)


def test_existing_fingerprints_are_what_they_were() -> None:
    pairs = "0" * 64
    prints = [Protocol(*k, "users >= 5, items >= 5, repeatedly", pairs).fingerprint for k in KNOWN]  # type: ignore[arg-type]
    assert prints == list(KNOWN.values())


KNOWN = {
    ("mmrec", "mmrec"): "bd76bcff6411a0e8",
    ("strict", "mmrec"): "025ebb96cfe5af77",
    ("mmrec", "user-time"): "75fc83fa63aeaaf5",
    ("mmrec", "imported"): "82b95256b452127d",
}
"""(rule, split) -> fingerprint before cold items were supported"""


def test_a_cold_split_has_two_protocols_and_no_other_split_has() -> None:
    rules = protocol_of(cold.params(), "shop", cold.parts())
    alone, every = rules.variants
    assert (alone.name, every.name) == (
        "mmrec, cold-items 0.4, cold items alone", "mmrec, cold-items 0.4, all items"
    )  # fmt: skip
    assert alone is rules
    assert (alone.suffix, every.suffix) == ("", "-all-items")
    assert alone.fingerprint != every.fingerprint
    assert alone.selection == every.selection == "first epoch of best valid recall@20 among cold items alone"
    own, parts = toy.params(), tastes.two_tastes()
    plain, sparse = (protocol_of(own, "shop", p) for p in (parts, replace(parts, division="sparse 5 of mmrec")))
    assert plain.variants == (plain,)
    assert (plain.suffix, plain.candidates) == ("", "all items")
    assert (sparse.name, len(sparse.variants)) == ("mmrec, sparse 5 of mmrec", 1)
    assert sparse.fingerprint != plain.fingerprint


@pytest.mark.parametrize("rule", ["mmrec", "strict"])
def test_test_is_opened_by_the_candidates_of_the_protocol(rule: str) -> None:
    parts = cold.parts()
    rules = replace(protocol_of(cold.params(), "shop", parts), rule=rule)
    alone, every = (open_test(*whole_vectors(), parts, p, [5, 20]) for p in rules.variants)
    assert set(alone.valid.top.ravel().tolist()) <= set(range(cold.COLD))
    assert set(alone.test.top.ravel().tolist()) <= set(range(cold.COLD, 2 * cold.COLD))
    assert set(every.test.top.ravel().tolist()) - set(range(2 * cold.COLD))
    assert alone.label != every.label
    seen = unite_pairs(parts.train, parts.valid, parts.n_items) if rule == "strict" else parts.train
    plain = evaluate_vectors(*whole_vectors(), replace(parts, division=""), "test", [5, 20], seen)
    assert every.test.mean == plain.mean
    assert alone.test.mean["recall", 20] > every.test.mean["recall", 20]
    assert np.array_equal(alone.test.users, every.test.users)


def test_the_epoch_is_chosen_among_cold_items_alone() -> None:
    parts, settings = cold.parts(), model_settings(cold.params(), "bpr")
    fitted = fit(BPR, parts, None, None, settings, 0)
    judged = evaluate_vectors(
        fitted.user, fitted.item, parts, "valid", [20], candidates=np.arange(cold.COLD, dtype=np.int32)
    )
    assert fitted.valid["recall@20"] == judged.mean["recall", 20]
    assert (
        fitted.valid["recall@20"] > evaluate_vectors(fitted.user, fitted.item, parts, "valid", [20]).mean["recall", 20]
    )


def test_so_few_cold_items_that_the_epoch_says_nothing_are_refused() -> None:
    parts = cold.parts()
    kept = parts.valid.items < 20
    few = replace(parts, valid=Pairs(parts.valid.users[kept], parts.valid.items[kept]))
    with pytest.raises(UserError, match=r"20 items .*interactions\.cold_share"):
        fit(BPR, few, None, None, model_settings(cold.params(), "bpr"), 0)
