"""What the README shows exists: every command with its options, make's targets, parameters; and it stays short."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipeline.layout import Layout
from stages import params
from stages.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [README, *((ROOT / f"docs/{page}.md").read_text() for page in ("install", "stages"))]
LINES = [
    line.partition(" #")[0].strip()
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for command in block.splitlines()
    for line in command.split("&&")
    if line.strip() and not line.startswith("#")
]
COMMANDS = [
    shlex.split(line)[1:] for line in LINES if line.startswith("alignrec ") and not line.startswith("alignrec --")
]
GROUP = typer.main.get_command(app)


def command(name: str) -> Any:
    return GROUP.commands[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_has_the_options_that_are_shown(words: list[str]) -> None:
    name, *arguments = words
    command(name).make_parser(command(name).make_context(name, [], resilient_parsing=True)).parse_args(arguments)


def test_the_commands_are_those_that_people_use() -> None:
    assert {"fetch", "verify", "new", "compare", "diff", "export"} <= {words[0] for words in COMMANDS}


def test_targets_of_make_exist() -> None:
    shown = {shlex.split(line)[1] for line in LINES if line.startswith("make ")}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"repro", "test"} <= shown <= targets


def test_profiles_that_are_named_exist() -> None:
    named = [words[1] for words in COMMANDS if words[0] == "profile"]
    assert named
    assert [name for name in named if not (ROOT / "profiles" / f"{name}.yaml").is_file()] == []


def test_parameters_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        path = tmp_path / "params.yaml"
        path.write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n" + block)
        assert set(params.load(path).encoders) == set(yaml.safe_load(block)["encoders"])


def test_badges_say_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["requires-python"].removeprefix(">=")
    badges = re.findall(r"!\[(\w+): ([^\]]+)\]\(https://\S+/badge/\w+-(\S+)-teal\)", README)
    assert badges == [
        ("Licence", project["license"], project["license"].replace("-", "--")),
        ("Python", f"{version}+", f"{version}%2B"),
    ]


def test_what_summary_prints_last_is_shown() -> None:
    layout = Layout(Path("outputs"), "sample")
    assert f"```text\nreport: {layout.report / 'index.html'}\nrelease: {layout.release}\n```\n" in README


def test_it_is_short() -> None:
    typed = re.sub(r"<!-- figures.*?/figures -->", "", README, flags=re.DOTALL)
    assert len(typed.split()) < 800
