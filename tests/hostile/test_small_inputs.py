"""Mistakes of users, and signals: one line each, at once."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import typer
from processes import started
from typer.testing import CliRunner

from alignrec.commands import terminal
from alignrec.commands.app import app
from pipeline import memory
from pipeline.errors import UserError
from pipeline.sources.delimited import column_names
from pipeline.sources.lines import json_object, lines

ROWS = "user,item\n" + "".join(f"u{i % 9},i{i % 7}\n" for i in range(200))


def new(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["new", "mine", "--to", "p.yaml", *arguments])
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    return done.output.splitlines()[-1]


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "head"), [("b.csv.gz", b"user,item\n"), ("b.jsonl.gz", b'{"user": "u", "item": "i"}\n'), ("e.csv.gz", b"")]
)
def test_a_file_of_blank_lines_is_one_line_soon(name: str, head: bytes) -> None:
    Path(name).write_bytes(gzip.compress(head + b"\n" * (64 << 20), 1))
    start = time.process_time()
    assert "blank lines" in (said := new("--interactions", name)) or "is empty" in said
    Path("r.csv").write_text(ROWS)
    if head:
        assert "blank lines" in new("--interactions", "r.csv", "--items", name)
        with pytest.raises(UserError, match="1,000,000 blank lines"):
            list(lines(Path(name)))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("price", ["NaN", "-Infinity"])
def test_a_number_that_is_no_json_does_not_lose_its_item(price: str) -> None:
    line = f'{{"item": "i", "price": {price}}}'
    assert json_object(line.encode()) == {"item": "i", "price": None}
    Path("i.jsonl").write_text(line + "\n")
    assert column_names(Path("i.jsonl")) == ["item", "price"]
    for broken in (line[:-1], line.replace('"i"', r'"\ud800"'), line.replace('"i"', '"\\ud800"'), f"[{line}"):
        with pytest.raises(ValueError, match="not JSON"):
            json_object(broken.encode())


def waiting(command: str, error: Exception | None = None) -> None:
    app = typer.Typer(cls=terminal.Group, pretty_exceptions_enable=False)

    @app.command()
    def wait() -> None:
        with terminal.interruptible("what is done is kept in here"):
            print("waiting", flush=True)
            time.sleep(60)

    @app.command()
    def ask() -> None:
        with terminal.interruptible("what is done is kept in here"):
            print("waiting", flush=True)
            duckdb.execute("SELECT count(*) FROM range(1 << 30) a, range(1 << 30) b WHERE hash(a.range + b.range) = 3")

    @app.command()
    def full() -> None:
        raise error or AssertionError

    app([command])


@pytest.mark.parametrize("command", ["wait", "ask"])
@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_signal_says_what_is_kept(number: signal.Signals, how: str, command: str) -> None:
    with started(waiting, command) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert errors == f"{how}: what is done is kept in here; run the same command again\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize(
    ("megabytes", "command"),
    [(200, ["verify", "sample"]), (500, ["plan"]), (1000, ["graph", "sample"]), (2000, ["--version"])],
)
def test_too_few_addresses_are_one_line(megabytes: int, command: list[str]) -> None:
    limited = ["sh", "-c", f'ulimit -v {1000 * megabytes}; exec "$@"', "sh", sys.executable, "-m", "alignrec", *command]
    done = subprocess.run(limited, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {memory.TOO_LITTLE}\n"
