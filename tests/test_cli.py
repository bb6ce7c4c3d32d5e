"""The umbrella command: a table of stages, and mistakes in one line."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import shipped
import toy
import typer
import verdicts
from commands import alignrec
from toyproject import environment

from pipeline import io
from pipeline.errors import installing
from pipeline.layout import Layout
from stages import examples
from stages.arguments import parted
from stages.cli import app
from stages.order import STAGES

ROOT = Path(__file__).parent.parent
HEAVY = ["torch", "transformers", "open_clip", "faiss", "duckdb", "huggingface_hub", "dvc"]


def test_help_reads_as_the_table_of_stages(tmp_path: Path) -> None:
    shown = alignrec("--help", cwd=tmp_path).stdout
    places = [shown.index(f" {name} ") for name in STAGES]
    assert places == sorted(places)


def test_help_groups_commands_and_make_lists_its_targets(tmp_path: Path) -> None:
    shown = alignrec("--help", cwd=tmp_path).stdout
    places = [
        shown.index(f"─ {heading} ─") for heading in ("Stages, in order", "Begin", "Look and compare", "Releases")
    ]
    assert places == sorted(places)
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"make repro", "make test", "make clean"} <= {" ".join(line.split()[:2]) for line in listed.splitlines()}


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_the_command_takes(name: str) -> None:
    command = COMMANDS[name]
    program, given, *arguments = shlex.split(examples.example(name).partition(" && ")[0])
    assert (program, given) == ("alignrec", name)
    assert command.epilog == f"Example: {examples.example(name)}"
    context = command.make_context(name, [], resilient_parsing=True)
    values, rest, _ = command.make_parser(context).parse_args(arguments)
    assert not rest
    assert {p.name for p in command.params if p.required} <= {key for key, value in values.items() if value}


def test_bash_completes_commands_options_and_datasets(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}, other: {kind: sample}}\n")

    def completed(*words: str, cwd: Path = tmp_path) -> list[str]:
        asked = {"_ALIGNREC_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("alignrec", *words))}
        asked |= {"COMP_CWORD": str(len(words)), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["alignrec"], cwd=cwd, env=environment() | asked, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert completed("pre") == ["pretrain"]
    assert completed("compare", "--tr") == ["--train"]
    assert completed("train", "s") == ["shop"]
    assert completed("train", "s", cwd=tmp_path.parent) == []


def test_summary_before_any_run_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    done = alignrec("summary", cwd=tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "error: outputs has nothing of shop, as no stage has run; name it under `datasets` in params.yaml and run "
        "`dvc repro`\n"
    )


def test_a_report_before_any_run_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    done = alignrec("report", "shop", cwd=tmp_path)
    assert done.exit_code == 1
    assert "error: nothing of shop is there to report, as no stage has run; name it" in done.stderr


def test_compare_ends_with_a_verdict_and_summary_with_paths(tmp_path: Path) -> None:
    toy.outputs(tmp_path / "outputs")
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    compared = alignrec("compare", "shop", "beit3", "random", cwd=tmp_path).stdout.splitlines()
    assert any("(n 4)" in line for line in compared)
    assert compared[-1] == "On shop, BEiT3 features are level with random."
    told = alignrec("summary", cwd=tmp_path).stdout
    assert told.index("shop, stages") < told.index("shop, protocol") < told.index("results: ")
    assert told.splitlines()[-2:] == ["report: not made yet", "release: not made yet"]
    assert "Use " not in told
    layout = Layout(tmp_path / "outputs", "shop")
    io.write_json(layout.probes, io.read_json(layout.probes) | verdicts.probes(best="worse worse"))
    told = alignrec("summary", cwd=tmp_path).stdout
    assert "Use best, not beit3: it is better in zero-shot and Item-CF, and worse in no probe.\nresults: " in told


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert alignrec("--version", cwd=tmp_path).stdout == f"alignrec {version('alignrec')}\n"


@pytest.mark.parametrize(
    "command",
    [("compare", "shop", "beit4"), ("fetch", "gone", "--to", "new"), ("verify", "gone"), ("diff", "gone", "gone")],
    ids=lambda command: command[0],
)
def test_what_users_do_with_releases_starts_without_what_is_slow(tmp_path: Path, command: tuple[str, ...]) -> None:
    """These start in half a second of one core; each of these packages would add as much, some of them ten times.

    pandas is not listed: pyarrow loads it by itself where it is installed, which the package alone does not ask for.
    """
    toy.outputs(tmp_path / "outputs")
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    slow = [*HEAVY, "scipy", "PIL", "obstore"]
    code = f"""
import sys
from stages.arguments import parted
from stages.cli import app
try:
    app({list(command)!r})
except SystemExit as end:
    print(end.code, [name for name in {slow!r} if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout == "1 []\n", shown.stderr


def test_a_stage_loads_what_is_slow_only_to_work(tmp_path: Path) -> None:
    """A second `dvc repro` asks each of fourteen stages; the shipped parameters have sets that are made of others."""
    code = f"""
import sys
from pathlib import Path
from stages.params import read
read(Path("params.yaml"), "sample")
print([name for name in {[*HEAVY, "scipy"]!r} if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=shipped.root(), capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr


def test_compare_needs_neither_torch_nor_faiss(tmp_path: Path) -> None:
    toy.outputs(tmp_path / "outputs")
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    code = f"""
import sys
from stages.arguments import parted
from stages.cli import app
sys.modules |= dict.fromkeys({HEAVY!r})  # as if not installed: importing one raises
app(["compare", "shop", "beit3", "random"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/compare/shop/index.html").exists()


def test_a_missing_faiss_names_the_extras_that_bring_it(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    code = "import sys; sys.modules['faiss'] = None; from stages.cli import app; app(['graph', 'shop'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: faiss is not installed: {installing('cpu')}\n"


def test_a_mistake_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\ntrain: {lrr: 1}\n")
    done = alignrec("train", "shop", cwd=tmp_path)
    assert done.exit_code == 1
    assert done.stderr.strip() == "error: params.yaml: unknown key 'train.lrr'; did you mean 'lr'?"


def test_an_unknown_dataset_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    done = alignrec("train", "../shop", cwd=tmp_path)
    assert done.exit_code == 1
    assert "no dataset '../shop'" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml"]


@pytest.mark.parametrize("given", ["3/2", "0/2", "2", "a/b", "1/-2"])
def test_a_part_is_one_of_so_many(given: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"'{given}' is no part; give I/N"):
        parted(given)
    assert parted("2/2") == (2, 2)
    assert parted(None) is None


@pytest.mark.parametrize("command", ["", "new", "compare", "export", "fetch", "recommend", "images"])
def test_help_names_values_in_capitals_within_eighty_columns(command: str, tmp_path: Path) -> None:
    said = alignrec(*command.split(), "--help", cwd=tmp_path, COLUMNS="80").stdout
    assert re.findall(r"<[\w\[\] |]+>|\{\w+\}(?!/)", said.replace("images/{item}.jpg", "")) == []
    assert max(map(len, said.splitlines())) <= 80
    if command == "compare":
        assert "[OPTIONS] DATASET SETS..." in said
        assert re.search(r"--params +FILE +", said)
        assert re.search(r"--train  +also", said)
