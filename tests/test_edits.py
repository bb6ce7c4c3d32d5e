"""The edits that CONTRIBUTING.md lists, each made on a copy with the named files only."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import alignrec as command
from test_newcomer import ENCODER, MODEL, PROBE
from toyproject import copied, run

import alignrec
from alignrec.commands import project
from alignrec.commands.params import read

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "CONTRIBUTING.md").read_text().split("## Ten edits")[1].split("Other edits")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| edit")
]
FILES = {edit: re.findall(r"`([\w./]+\.(?:py|yaml))`", files) for edit, files, _ in ROWS}
FIRST = {edit: first.strip("`") for edit, _, first in ROWS}
KEYS = {edit: found[0] for edit, files, _ in ROWS if (found := re.findall(r"`params.yaml`: `([\w.]+)`", files))}
VALUES: dict[str, Any] = {
    "graph.k": 20,
    "benchmark.seeds": 2,
    "train.epochs": 7,
    "interactions.protocol": "cold-items",
    "sources.shop.interactions": "moved/ratings.csv",
}
PARAMS = """
datasets: [shop]
sources: {shop: {kind: tabular, interactions: ratings.csv, items: items.csv}}
"""
EXPORT = '''
"""Plain: identifiers, one a line."""


def write_plain(content, folder):
    (folder / "items.txt").write_text("\\n".join(content.items["asin"].to_pylist()))
    return "`items.txt` has an identifier a line.", []
'''
STAGE = '''
"""census: how many items have a text -> census.json."""

from alignrec.pipeline import census, io
from alignrec.pipeline.runtime.section import Section
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.schemas import ITEMS as TABLE
from alignrec.stages.items import ITEMS


class Census(Section):
    """Section `census` of params.yaml."""

    least: int = 1
    """characters that count as a text"""


def main(run: Run) -> None:
    """Count them."""
    texts = io.read_table(run.layout.items, TABLE, ["text"])["text"].to_pylist()
    found = census.count(texts, run.params[Census].least)
    io.write_json(run.folder / "census.json", {"with text": found})


CENSUS = Stage(
    "census", does="how many items have a text", writes="`census.json`", reads=(ITEMS,), params=Census, main=main
)
'''
COUNT = '''
"""Counts texts."""


def count(texts, least):
    return sum(len(text or "") >= least for text in texts)
'''


def entered(path: str, after: str, line: str) -> str:
    text = (ROOT / path).read_text()
    assert text.count(after) == 1, f"{path} has no single {after!r}"
    return text.replace(after, after + line)


def with_stage(path: str) -> str:
    text = entered(
        path, "from alignrec.stages.benchmark import BENCHMARK\n", "from alignrec.stages.census import CENSUS\n"
    )
    return text.replace("    ITEMS,\n", "    ITEMS,\n    CENSUS,\n")


def with_export(path: str) -> str:
    package = "from alignrec.pipeline.release.export"
    text = (ROOT / path).read_text()
    text = text.replace(f"{package}.recbole", f"{package}.plain import write_plain\n{package}.recbole")
    return text.replace('    "mmrec":', '    "plain": write_plain,\n    "mmrec":')


def registered(group: str, name: str, place: str) -> tuple[str, str]:
    return f'    "{group}",\n    {{\n', f'"{name}": "alignrec.pipeline.{place}",\n'


PARTS: dict[str, dict[str, Any]] = {
    "add an encoder": {
        "pipeline/encoders/NAME.py": ENCODER,
        "pipeline/encoders/registry.py": registered("encoders", "letters", "encoders.letters:SPEC"),
    },
    "add a recommender": {
        "pipeline/models/NAME.py": MODEL,
        "pipeline/models/__init__.py": registered("models", "contentmf", "models.contentmf:ContentMF"),
    },
    "add a stage": {
        "pipeline/NAME/__init__.py": COUNT,
        "stages/NAME.py": STAGE,
        "stages/order.py": with_stage,
        "alignrec/commands/sections.yaml": ("# cutoffs\n", "\ncensus: {least: 1} # characters that count as a text\n"),
    },
    "add an export": {"pipeline/release/export/NAME.py": EXPORT, "pipeline/release/export/write.py": with_export},
    "add a probe": {
        "pipeline/evaluation/probe/NAME.py": PROBE,
        "pipeline/evaluation/probe/registry.py": registered("probes", "distinct", "evaluation.probe.distinct:DISTINCT"),
    },
}
"""edit -> file -> its text, or the text before which a line is inserted, and that line"""
NAMES = dict(zip(PARTS, ("letters", "contentmf", "census", "plain", "distinct"), strict=True))
USED = {
    "add an encoder": {
        **{"encoders": {"letters": {"scale": 2.0}}, "encode": {"encoders": ["letters"]}},
        **{"beit3": {"sets": []}, "combine": {"sets": {"linear": {}}}},
    },
    "add a recommender": {"benchmark": {"models": ["contentmf"], "overrides": {"contentmf": {"normalise": False}}}},
}
"""edit -> parameters that only a project with the part can have"""


def test_the_page_lists_the_edits_that_are_made() -> None:
    assert len(ROWS) == 10
    assert [*PARTS, *KEYS] == [edit for edit, _, _ in ROWS]
    assert {edit: [*files] for edit, files in PARTS.items()} == {edit: FILES[edit] for edit in PARTS}


@pytest.mark.parametrize("edit", KEYS)
def test_a_key_is_changed_where_the_page_says(edit: str, tmp_path: Path) -> None:
    *path, last = KEYS[edit].replace("NAME", "shop").split(".")
    given: dict[str, Any] = yaml.safe_load(PARAMS)
    inner = given
    for name in path:
        inner = inner.setdefault(name, {})
    inner[last] = value = VALUES[".".join([*path, last])]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    params = read(tmp_path / "params.yaml", "shop")
    section = params.source("shop") if path[0] == "sources" else getattr(params, path[0])
    changed = section.model_dump()[last]
    assert changed in (value, [value])
    plan = yaml.safe_load(project.dvc_yaml(params))["stages"]
    named = "sources.${item.dataset}" if path[0] == "sources" else path[0]
    assert next(name for name, stage in plan.items() if named in stage["params"]) == FIRST[edit]


@pytest.mark.usefixtures("shims")
@pytest.mark.parametrize("edit", PARTS)
def test_a_part_is_added_with_the_named_files(edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    name, texts, copy = NAMES[edit], PARTS[edit], clone(tmp_path / "clone")
    for path, text in texts.items():
        file = copy / path.replace("NAME", name)
        file.parent.mkdir(exist_ok=True)
        if isinstance(text, tuple):
            text = entered(path, *text)
        file.write_text(text if isinstance(text, str) else text(path))
    (copy / "params.yaml").write_text(yaml.safe_dump(yaml.safe_load(PARAMS) | USED.get(edit, {})))
    run("alignrec", "new", cwd=copy)
    before, after = (json.loads((folder / "code.json").read_text()) for folder in (ROOT, copy))
    expected = {"itself": name, "none": None}.get(FIRST[edit], FIRST[edit])
    assert next((stage for stage in after if after[stage] != before.get(stage)), None) == expected
    shown(edit, copy)


def shown(edit: str, copy: Path) -> None:
    if edit == "add a stage":
        assert "least: 1" in (copy / "params.yaml").read_text()
        assert "how many items have a text" in run("alignrec", "census", "--help", cwd=copy)
        (copy / "p.yaml").write_text("datasets: [s]\nsources: {s: {kind: sample, users: 300, items: 100}}\n")
        for stage in ("download", "interactions", "items"):  # whose code is this clone's
            assert command(stage, "s", "--params", "p.yaml", cwd=copy).exit_code == 0
        run("alignrec", "census", "s", "--params", "p.yaml", cwd=copy)
        assert "with text" in (copy / "outputs/census/s/census.json").read_text()
    if edit == "add an export":
        release = str(alignrec.load("sample").folder)
        run("alignrec", "export", release, "--format", "plain", "--features", "linear", "--to", "out", cwd=copy)
        assert len((copy / "out/items.txt").read_text().splitlines()) > 1000
        assert "an identifier a line" in (copy / "out/README.md").read_text()


def clone(folder: Path) -> Path:
    copied(folder)
    (folder / ".dvc").mkdir()
    return folder
