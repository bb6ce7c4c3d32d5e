"""The umbrella command: a table of stages, and mistakes in one line."""

import subprocess
import sys
from pathlib import Path

from stages import STAGES


def alignrec(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stages.cli", *args], cwd=cwd, capture_output=True, text=True)


def test_help_reads_as_the_table_of_stages(tmp_path: Path) -> None:
    shown = alignrec("--help", cwd=tmp_path).stdout
    places = [shown.index(f" {name} ") for name in STAGES]
    assert places == sorted(places)


def test_help_does_not_import_what_is_slow(tmp_path: Path) -> None:
    loaded = (
        "import sys, stages.cli; print([m for m in ('torch', 'transformers', 'faiss', 'duckdb') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", loaded], cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_a_mistake_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\ntrain: {lrr: 1}\n")
    done = alignrec("train", "shop", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: params.yaml: unknown key 'train.lrr'; did you mean 'lr'?"


def test_an_unknown_dataset_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    done = alignrec("train", "../shop", cwd=tmp_path)
    assert done.returncode == 1
    assert "no dataset '../shop'" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml"]
