"""What a tag publishes: CITATION.cff, .zenodo.json, classifiers and the release workflow agree."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JOBS = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
PYTHON = "Programming Language :: Python :: 3."


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def index_of(job: str, start: str) -> int:
    return next(i for i, line in enumerate(commands(job)) if line.startswith(start))


def test_the_citation_names_each_key_once() -> None:  # YAML's parser takes the last of two
    keys = re.findall(r"^[a-z-]+(?=:)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert len(keys) == len(set(keys))


def test_the_citation_has_the_date_of_its_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    dates = dict(re.findall(r"^## \[([\d.]+)\] - (\S+)$", changes, re.MULTILINE))
    assert str(CITATION["date-released"]) == dates[CITATION["version"]]


def test_zenodo_gets_what_the_citation_says() -> None:
    deposit: dict[str, Any] = json.loads((ROOT / ".zenodo.json").read_text())
    assert deposit["title"] == CITATION["title"] == PROJECT["name"]
    assert deposit["description"] == CITATION["abstract"]
    assert deposit["keywords"] == CITATION["keywords"]
    assert deposit["license"] == CITATION["license"] == PROJECT["license"]
    assert [creator["name"] for creator in deposit["creators"]] == [CITATION["authors"][0]["name"]]
    papers = {reference["url"].rpartition("/")[2] for reference in CITATION["references"]}
    assert {related["identifier"].removeprefix("arXiv:") for related in deposit["related_identifiers"]} == papers


def test_the_wheel_is_tried_on_each_python_of_the_classifiers() -> None:
    tried = JOBS["smoke"]["strategy"]["matrix"]["python"]
    listed = [line.removeprefix(PYTHON) for line in PROJECT["classifiers"] if line.startswith(PYTHON)]
    assert tried == [f"3.{minor}" for minor in listed]
    ci = yaml.safe_load((ROOT / ".github/workflows/two-commands.yml").read_text())["jobs"]
    assert ci["light"]["strategy"]["matrix"]["python"] == tried


def test_what_is_published_was_checked_and_tried_and_is_not_built_again() -> None:
    assert index_of("build", "uv build") < index_of("build", "twine check --strict")
    assert JOBS["smoke"]["needs"] == "build"
    assert JOBS["publish"]["needs"] == "smoke"
    assert not any("build" in line for line in commands("publish"))
    assert index_of("publish", "gh run download") < index_of("publish", "uv publish --trusted-publishing always")


def test_only_the_job_that_publishes_has_an_identity() -> None:
    assert [name for name, job in JOBS.items() if "id-token" in job.get("permissions", {})] == ["publish"]
