"""The table of the last runs in docs/robustness.md."""

from pathlib import Path

import pytest

from tests.hostile import runs


def test_the_page_says_what_the_file_says() -> None:
    page = runs.PAGE.read_text("utf-8")
    assert runs.with_table(page, runs.read()) == page
    assert {"differential", "kill"} == runs.read().keys()


def test_a_run_is_noted_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "robustness.md"
    page.write_text(f"before\n{runs.START}{runs.END}after\n")
    monkeypatch.setattr(runs, "PAGE", page)
    monkeypatch.setattr(runs, "FILE", tmp_path / "runs.json")
    monkeypatch.setattr(runs, "commit", lambda: "1234abcd")
    runs.record("fuzz", 12_345, "inputs", 0)
    runs.record("kill", 3, "kills", 1)
    runs.record("kill", 4, "kills", 0)
    shown = page.read_text()
    assert "| `make fuzz` | 12,345 inputs | 0 | 1234abcd |\n" in shown
    assert "| `make kill` | 4 kills | 0 | 1234abcd |\n" in shown
    assert (shown.startswith("before\n"), shown.endswith("after\n"), shown.count("| `make")) == (True, True, 2)
