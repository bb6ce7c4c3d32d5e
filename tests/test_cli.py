"""The command line: help, completion, lazy imports, and one-line errors."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import typer
from commands import alignrec, error_line
from processes import started
from shop import toy

from alignrec.commands import terminal
from alignrec.pipeline.runtime import process

HEAVY = ["torch", "transformers", "open_clip", "faiss", "duckdb", "huggingface_hub", "dvc"]
PARAMS = "datasets: [shop]\nsources: {shop: {kind: sample}, other: {kind: sample}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "more", "facts"),
    [
        (("summary",), "", ("shop", "dvc repro")),
        (("report", "shop"), "", ("nothing of shop",)),
        (("train", "shop"), "train: {lrr: 1}\n", ("params.yaml", "'train.lrr'", "'lr'")),
        (("train", "../shop"), "", ("'../shop'",)),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    folder: Path, words: tuple[str, ...], more: str, facts: tuple[str, ...]
) -> None:
    (folder / "params.yaml").write_text(PARAMS + more)
    done = alignrec(*words, cwd=folder)
    line = error_line(done)
    assert done.stdout == ""
    assert [fact for fact in facts if fact not in line] == []
    if words[-1] == "../shop":
        assert sorted(p.name for p in folder.iterdir()) == ["params.yaml"]


LOADED = """
import sys
from alignrec.commands.app import app
for command in {commands!r}:
    try:
        app(command)
    except SystemExit as end:
        print(command[0], end.code, [name for name in {slow!r} if name in sys.modules])
"""


def test_commands_of_releases_start_without_slow_libraries(folder: Path) -> None:
    """They start in 0.5 CPU seconds; each of these packages would double that. pyarrow itself loads pandas."""
    toy.outputs(folder / "outputs")
    commands = [["compare", "shop", "beit4"], ["fetch", "gone", "--to", "new"], ["verify", "gone"], ["diff", "a", "b"]]
    code = LOADED.format(commands=commands, slow=[*HEAVY, "scipy", "PIL", "obstore"])
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "".join(f"{command[0]} 1 []\n" for command in commands), done.stderr


# --- signals, and too little memory


ENDLESS = "SELECT count(*) FROM range(1 << 30) a, range(1 << 30) b WHERE hash(a.range + b.range) = 3"


def waiting(query: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored
    app = typer.Typer(cls=terminal.Group, pretty_exceptions_enable=False)
    app.callback()(lambda: None)  # else it is no group

    @app.command()
    def ask() -> None:
        with terminal.explain_interrupt("what is done is kept in here"):
            print("waiting", flush=True)
            duckdb.execute(query) if query else time.sleep(60)

    app(["ask"])


@pytest.mark.parametrize("query", ["", ENDLESS], ids=["asleep", "in C"])
@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_signal_says_what_is_kept(number: signal.Signals, how: str, query: str) -> None:
    with started(waiting, query) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert errors == f"{how}: what is done is kept in here; run the same command again\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize(
    ("megabytes", "command"),
    [(200, ["verify", "sample"]), (500, ["plan"]), (1000, ["graph", "sample"]), (2000, ["--version"])],
)
def test_too_few_addresses_are_one_line(megabytes: int, command: list[str]) -> None:
    limited = ["sh", "-c", f'ulimit -v {1000 * megabytes}; exec "$@"', "sh", sys.executable, "-m", "alignrec", *command]
    done = subprocess.run(limited, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {process.TOO_LITTLE}\n"
