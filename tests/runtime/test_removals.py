"""A removed name is refused as an unknown one, with what replaced it."""

from pathlib import Path

import pytest
from commands import alignrec

from alignrec.commands import params
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.removals import INSTEAD

GOOD = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["align", "x"], "align"),
        (["publish", "sample", "--align", "x"], "align"),
        (["fetch", "x", "--to", "y", "--onto", "z"], "onto"),
        (["publish", "x", "--since", "z"], "since"),
        (["new", "x", "--from", "y"], "from"),
        (["graph", "x", "--part", "1/2"], "part"),
    ],
)
def test_a_removed_command_or_option_names_its_replacement(arguments: list[str], name: str) -> None:
    refused = alignrec(*arguments)
    assert refused.exit_code == 2
    words = " ".join(refused.output.replace("│", " ").split())
    assert f"it was removed: {INSTEAD[name]}" in words


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("publish: {align: x}", "align"),
        ("images: {most: 3}", "most"),
        ("train: {start: x}", "start"),
        ("benchmark: {models: [ials]}", "ials"),
        ("combine: {sets: {x: {kind: mapped}}}", "mapped"),
        ("combine: {sets: {linear: {fitted: x}}}", "fitted"),
        ("train: {features: leaked}", "leaked"),
    ],
)
def test_a_removed_key_names_its_replacement(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD + text)

    with pytest.raises(UserError, match=f"'.*{key}'; it was removed: ") as refused:
        params.load(path)

    assert str(refused.value).endswith(INSTEAD[key])
