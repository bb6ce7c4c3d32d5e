"""Test is evaluated in one place only, by the rules of the protocol."""

import ast
from dataclasses import replace

import numpy as np
import pytest
from shops import ITEMS, USERS, two_tastes

from alignrec.pipeline.errors import UserError
from alignrec.pipeline.evaluation.metrics import open_test
from alignrec.pipeline.evaluation.protocol import Protocol, questions
from alignrec.pipeline.harness import code
from alignrec.pipeline.interactions.split import unite_pairs

RULES = Protocol("mmrec", "mmrec", "core", questions(two_tastes()))


def opens_test(call: ast.Call) -> bool:
    """Return whether it calls `evaluate` on anything but the literal "valid"."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    which = [*call.args[3:4], *(k.value for k in call.keywords if k.arg == "which")]
    valid = which and isinstance(which[0], ast.Constant) and which[0].value == "valid"
    return name == "evaluate_vectors" and not valid


def test_one_file_opens_test() -> None:
    files = [path for folder in ("pipeline", "stages") for path in (code.ROOT / folder).rglob("*.py")]
    calls = {path: [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)] for path in files}
    opening = [str(path.relative_to(code.ROOT)) for path, in_file in calls.items() if any(map(opens_test, in_file))]
    assert opening == ["pipeline/evaluation/metrics.py"]


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
