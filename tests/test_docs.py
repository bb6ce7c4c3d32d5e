"""What documents point at is there: sections, links, files; and CITATION.cff says what its format asks for."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from scripts import script

from pipeline.features.registry import kinds
from stages import params

HERE = Path(__file__)
ROOT = HERE.parent.parent
FOLDERS = ("alignrec", "pipeline", "stages", "schemas", "tests", "benchmarks", "docs")
CODE = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".html")]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
METHOD = (ROOT / "docs/method.md").read_text()

CITED = re.compile(r"method\.md(?:\]\([^)]*\))?\s+sections?\s+(\d+(?:(?:,\s+|\s+and\s+)\d+)*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_sections_that_are_cited_exist() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", METHOD, re.MULTILINE))
    cited = {
        (name(path), number)
        for path in CODE
        for numbers in CITED.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", numbers)
    }
    assert {where for where, _ in cited} >= {"pipeline/models/alignrec.py", "pipeline/evaluation/protocol.py"}
    assert [(where, number) for where, number in cited if number not in sections] == []


def test_every_table_is_whole() -> None:
    """A blank line inside a table makes text of the rows below it."""
    tables = [
        (name(path), table.strip().splitlines())
        for path in DOCUMENTS
        for table in re.findall(r"(?:^\|.*\n?)+", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(tables) > 30
    assert [(where, rows[0]) for where, rows in tables if not re.match(r"\|[ :|-]+\|$", [*rows, ""][1])] == []


def test_modules_cite_the_method_by_section() -> None:
    texts = {name(path): path.read_text(encoding="utf-8") for path in CODE if path.suffix == ".py" and path != HERE}
    assert [where for where, text in texts.items() if text.count("method.md") != len(CITED.findall(text))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_and_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == []
    assert [file for file in FILE.findall(text) if "NAME" not in file and not (ROOT / file).exists()] == []


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/encoders.md").read_text(), re.DOTALL))
def test_encoders_in_the_documents_are_valid(block: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n" + block)
    assert params.load(path).encoders


def test_every_kind_of_encoder_is_documented() -> None:
    table = (ROOT / "docs/encoders.md").read_text().split("## Kinds")[1].split("##")[0]
    first = [cell for row in table.splitlines() if row.startswith("| ") for cell in row.split("|")[1].split(",")]
    assert {cell.strip() for cell in first} - {"kind"} == {*kinds()}


def test_the_citation_has_what_its_format_requires() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert (cited["title"], cited["version"], cited["license"]) == tuple(
        project[key] for key in ("name", "version", "license")
    )
    for work in (cited, *cited["references"]):
        assert {"type", "title", "authors"} <= set(work)
        assert all({"family-names", "given-names"} <= set(a) or "name" in a for a in work["authors"])
    assert cited["message"]


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[:2] == [
        "Unreleased",
        version,
    ]


CHANGES = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-01\n\n### Added\n\n- new\n\n## [0.1.0]\n\n- old\n"


def test_release_notes_are_the_section_of_the_version() -> None:
    notes = script("notes").notes
    assert notes(CHANGES, "0.2.0") == "### Added\n\n- new"
    assert notes(CHANGES, "0.1.0") == "- old"
    for version in ("Unreleased", "0.3.0"):  # nothing in it; not there
        with pytest.raises(LookupError, match=f"{version}; .*Unreleased, 0.2.0, 0.1.0"):
            notes(CHANGES, version)
