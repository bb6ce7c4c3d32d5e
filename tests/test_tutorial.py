"""What docs/tutorial.md shows before anything is trained runs as it is written, and prints what it shows."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest
import yaml
from commands import alignrec

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/tutorial.md").read_text()
STEPS = re.findall(r"```(python|bash|text)\n(.*?)```", PAGE, re.DOTALL)


def test_the_script_and_new_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC is begun, as far as `new` looks: it takes seconds."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    (tmp_path / ".dvc").mkdir()
    (kind, script), (other, command), (_, shown) = STEPS[:3]
    assert (kind, other) == ("python", "bash")
    with contextlib.chdir(tmp_path):
        exec(script, {})
    said = alignrec(*shlex.split(command)[1:], cwd=tmp_path)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(shown)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert {"minilm", "tfidf", "linear", "best"} <= {*params["encode"]["encoders"]}
