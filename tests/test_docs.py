"""README and docs match the code: sections, links, files, commands, options, parameters and figures."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from commands import alignrec as command
from commands import blocks
from environments import executed, scripts
from toyproject import committed

import alignrec
from alignrec.commands.app import app
from alignrec.pipeline import io
from alignrec.pipeline.images import access
from alignrec.pipeline.images.params import RATE
from benchmarks import _figures, _networks

HERE = Path(__file__)
ROOT = HERE.parent.parent
FOLDERS = ("alignrec", "pipeline", "stages", "schemas", "tests", "benchmarks", "docs")
CODE = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".html")]
PAGES = {path: path.read_text() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))}
METHOD = PAGES[ROOT / "docs/method.md"]
GROUP = typer.main.get_command(app)

CITED = re.compile(r"method\.md(?:\]\([^)]*\))?\s+sections?\s+(\d+(?:(?:,\s+|\s+and\s+)\d+)*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")


LINES = [
    line.partition(" #")[0].strip()
    for page in PAGES.values()
    for command in "".join(blocks(page, "bash")).splitlines()
    for line in command.split("&&")
    if line.strip() and not line.startswith("#")
]
COMMANDS = [shlex.split(line)[1:] for line in LINES if line.startswith("alignrec ") and line[9] != "-"]


def test_cited_sections_of_the_method_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", METHOD, re.MULTILINE))
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in CODE if path != HERE}
    cited = {(at, n) for at, text in texts.items() for found in CITED.findall(text) for n in re.findall(r"\d+", found)}
    assert {at for at, _ in cited} >= {"pipeline/models/alignrec.py", "pipeline/evaluation/protocol.py"}
    assert [(at, number) for at, number in cited if number not in sections] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_files_and_tables(path: Path) -> None:
    text = PAGES[path]
    assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == []
    assert [file for file in FILE.findall(text) if "NAME" not in file and not (ROOT / file).exists()] == []
    tables = [table.strip().splitlines() for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)]
    assert [rows[0] for rows in tables if not re.match(r"\|[ :|-]+\|$", [*rows, ""][1])] == []  # a blank line cuts it


def test_commands_targets_and_profiles_exist() -> None:
    for name, *arguments in COMMANDS:
        command = GROUP.commands[name]  # type: ignore[attr-defined]
        command.make_parser(command.make_context(name, [], resilient_parsing=True)).parse_args(arguments)
        assert name != "profile" or not arguments or (ROOT / "profiles" / f"{arguments[0]}.yaml").is_file()
    assert {"fetch", "verify", "new", "compare", "diff", "export", "profile"} <= {words[0] for words in COMMANDS}
    shown = {shlex.split(line)[1] for line in LINES if line.startswith("make ")}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"repro", "test"} <= shown <= targets


def test_a_page_names_what_limits_requests() -> None:
    page = " ".join(PAGES[ROOT / "docs/cluster.md"].split())
    assert f"at most {RATE:g} requests a second over {access.PER_HOST} connections" in page


def test_the_version_is_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", PAGES[ROOT / "CHANGELOG.md"], re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == alignrec.__version__ == version


@pytest.mark.usefixtures("with_dvc")
def test_the_tutorials_script_and_new_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    tutorial = PAGES[ROOT / "docs/tutorial.md"]
    writes, reads = scripts(tutorial)
    executed(writes, tmp_path)
    done = command(*shlex.split(blocks(tutorial, "bash")[0])[1:], cwd=tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(blocks(tutorial, "text")[0])
    made = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert {"minilm", "tfidf"} <= {*made["encode"]["encoders"]}

    release = tmp_path / "outputs/publish/mine/release"
    assert command("fetch", "sample", "--to", release).exit_code == 0  # as training takes minutes
    (shapes,) = executed(reads, tmp_path, "(x.shape[0], items.shape[0])")
    assert shapes[0] == shapes[1]
    # which `new` leaves out of a release of one's own data
    assert "users" not in made.get("publish", {})
    assert "release.embeddings" not in blocks(tutorial, "python")[1]


# --- tables match files of figures


PUBLISHED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_OTHERS = ("clip", "generate", "joint", "missing")  # experiments that train or read other networks
FENCED = re.compile(r"```.*?```", re.DOTALL)


def test_the_pages_tables_of_the_article_are_what_git_keeps_of_the_recorded_run(tmp_path: Path) -> None:
    pages = {path.name: path.read_text() for path in PUBLISHED}
    shown = re.findall(r"<!-- figures: article sample (\S+) -->", "".join(pages.values()))
    files = (ROOT / "outputs" / "figures" / "sample").glob("article-*.json")
    recorded = {path.stem.removeprefix("article-") for path in files}
    assert len(shown) == len({*shown})
    assert recorded <= {*shown}
    for name in (*(f"article-{part}" for part in recorded), "metrics"):
        file = f"outputs/figures/sample/{name}.json"
        io.write_bytes(tmp_path / file.removeprefix("outputs/"), committed(file))
    for name, page in pages.items():
        updated = _figures.rewritten(page, tmp_path)
        assert (name, updated.text) == (name, page), "make figures"
    unmade = re.findall(r"<!-- figures: article sample (\S+) -->\nNot made yet: ", "".join(pages.values()))
    assert {*unmade} == {*shown} - recorded


def test_blocks_of_a_dataset_are_of_one_network_or_say_that_they_are_not() -> None:
    assert _networks.find_mixed(path.read_text() for path in PUBLISHED) == []
    for path in PUBLISHED:
        blocks_shown = re.findall(r"<!-- figures: (\S+) \S+ *(\S*).*?<!-- /figures -->", path.read_text(), re.DOTALL)
        named = [part for kind, part in blocks_shown if kind in _figures.OF_ONE_DATASET and part not in OF_OTHERS]
        assert len(_networks.STATEMENT.findall(path.read_text())) == len(named), path.name


def test_a_figure_in_prose_is_in_a_table_of_its_page_or_in_a_recorded_file() -> None:
    files = (ROOT / "outputs" / "figures").glob("*/*.json")
    recorded = [number for path in files for number in numbers(io.read_json(path))]
    unknown = []
    for page in PUBLISHED:
        lines = FENCED.sub("", page.read_text()).splitlines()
        known = [*recorded, *numbers([line for line in lines if line.startswith("|")])]
        for line in (line for line in lines if not line.startswith("|")):
            for figure in re.findall(r"(?<![\w.])\.\d{3,}", line):
                half = 0.5 * 10.0 ** (1 - len(figure)) + 1e-9
                if not any(abs(number - float(figure)) <= half for number in known):
                    unknown.append(f"{page.name}: {figure} in: {line}")
    assert unknown == []


def numbers(value: Any) -> list[float]:
    """Return all fractions of a JSON value, and of its strings."""
    if isinstance(value, dict | list):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in numbers(one)]
    if isinstance(value, str):
        return [float(number) for number in re.findall(r"(?<![\w.])\d?\.\d+", value)]
    return [value] if isinstance(value, float) else []
