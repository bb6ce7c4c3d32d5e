"""Output of commands: no escape sequences from data, and no traceback on a closed pipe."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import alignrec
from rich.table import Table
from shop import releases, toy

from alignrec.commands import terminal
from alignrec.pipeline.io.errors import printable
from alignrec.pipeline.runtime.layout import Layout

TEXTS = {
    "plain": "plain",
    "Käse 日本 👍🏽": "Käse 日本 👍🏽",
    "a\u00a0b\tc\nd\r\u2028e": "a b c d  e",
    "\x1b[2J\x1b]0;title\x07": "\ufffd[2J\ufffd]0;title\ufffd",
    "\x9b31m": "\ufffd31m",
    "gnp.\u202eexe": "gnp.\ufffdexe",
    "\ud800": "\ufffd",
    "👨\u200d👩\u200d👧": "👨\u200d👩\u200d👧",
    "[red]no markup[/red] [/foo] :smile:": "[red]no markup[/red] [/foo] :smile:",
}
EVIL = "\x1b[2J[/foo]\u202e\x9b\x07"


@pytest.mark.parametrize("given", TEXTS)
def test_cells_and_titles_are_plain_text(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(given) == TEXTS[given]
    table = Table(given, title=given, caption=given)
    table.add_row(given)
    terminal.show(table)
    shown = capsys.readouterr().out
    assert shown.count(TEXTS[given].strip()) == 4
    assert all(line.isprintable() or "\u200d" in line for line in shown.splitlines())


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A published shop with hostile titles, identifiers and users."""
    layout = toy.outputs(tmp_path_factory.mktemp("evil"))
    for path, column in ((layout.items, "title"), (layout.users, "user"), (layout.user_embeddings, "user")):
        releases.rewrite(path, column, lambda values: [f"{EVIL}{i}" for i in range(len(values))])
    releases.released_with_codes(layout, releases.coded_params(levels=3))
    return layout


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "{release}"],
        ["diff", "{older}", "{release}"],
        ["compare", "{release}", "beit3", "minilm-cnn", "--to", "{new}"],
        ["compare", "{release}", EVIL],
        ["export", "{release}", "--format", EVIL, "--to", "{new}"],
        ["summary", "shop", "--params", "{params}", "--root", "{root}"],
    ],
    ids=lambda command: " ".join(command).replace(EVIL, "evil"),
)
def test_no_command_prints_an_escape_of_data(layout: Layout, tmp_path: Path, command: list[str]) -> None:
    older = toy.outputs(tmp_path / "older")
    toy.run("publish", toy.PARAMS, older.root)
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    places = {"release": layout.release, "older": older.release, "new": tmp_path / "new", "root": layout.root}
    filled = [part.format(**places, params=tmp_path / "params.yaml") if "{" in part else part for part in command]
    done = alignrec(*filled)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.output
    assert [line for line in done.output.splitlines() if not line.isprintable()] == []


@pytest.mark.parametrize(("closed", "said"), [(">&-", "error: "), ("2>&-", ""), ("<&- >&- 2>&-", "")])
def test_closed_streams_are_those_of_the_null_device(layout: Layout, tmp_path: Path, closed: str, said: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "alignrec", "verify"]
    done = subprocess.run([*shell, str(layout.release)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*shell, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr[:7]) == (1, said)


def test_outputs_have_no_address(tmp_path: Path) -> None:
    for root in ("s3:/x", "S3://x", "hf://datasets/x"):
        done = alignrec("items", "shop", "--root", root, cwd=tmp_path)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: --root {Path(root)}: an address; name a folder of this machine")


@pytest.mark.parametrize("lines", [0, 1])
def test_a_closed_pipe_ends_without_a_word(layout: Layout, lines: int) -> None:
    command = [sys.executable, "-m", "alignrec", "verify", str(layout.release)]
    verifying = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert verifying.stdout is not None
    for _ in range(lines):
        verifying.stdout.readline()
    verifying.stdout.close()
    assert verifying.stderr is not None
    assert verifying.stderr.read() == b""
    verifying.wait()
