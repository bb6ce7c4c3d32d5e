"""Each file of results/ is a run that the leaderboard can show, and docs/results.md shows it."""

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from commands import alignrec, error_line
from shop import releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import contributed, leaderboard
from alignrec.pipeline.runtime.code import ROOT
from benchmarks import _contribute, _figures

FILES = sorted((ROOT / "results").iterdir())
ROW: dict[str, Any] = {
    "model": "mine", "features": "theirs", "ablation": "", "protocol": "mmrec", "fingerprint": "f" * 16,
    "split": "test", "selected_by": "valid", "metric": "recall", "k": 20,
    "mean": 0.3, "sd": 0.1414, "values": [0.2, 0.4],
}  # fmt: skip
RUN: dict[str, Any] = {
    "dataset": "baby", "by": "Jane Doe", "date": "2026-11-30", "source": "https://example.org/run", "results": [ROW],
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_contributed_file_is_a_run(path: Path) -> None:
    assert path.suffix == ".json"
    run = contributed.read_run(path)
    assert run.date <= datetime.date.today()
    assert leaderboard.read_entries(path) == leaderboard.group_run(run)


def test_the_page_shows_what_the_files_say() -> None:
    page = (ROOT / "docs/results.md").read_text()
    assert _figures.rewritten(page, ROOT / "outputs") == (page, [], []), "make figures"
    for path in FILES:
        run = contributed.read_run(path)
        assert run.by in page
        assert run.release is None or f"| {run.release[:12]} |" in page


def test_the_published_schema_is_the_class() -> None:
    assert Path(schemas.__file__).with_name("result.schema.json").read_text() == contributed.schema_json()


def written(tmp_path: Path, run: dict[str, Any]) -> Path:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    return path


def test_seeds_and_source_reach_the_leaderboard(tmp_path: Path) -> None:
    ((group, entries),) = leaderboard.read_entries(written(tmp_path, RUN)).items()
    assert group == ("baby", "mmrec", "f" * 16)
    assert [(entry.model, entry.seeds, entry.headline) for entry in entries] == [("mine", 2, 0.3)]
    assert entries[0].source == "Jane Doe, 2026-11-30: https://example.org/run"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"mean": 0.31}, "row 0 of results has a mean that is not that of its values"),
        ({"sd": 0.1}, "has an sd that is not that of its values"),
        ({"sd": None}, "has an sd that is not that of its values"),
        ({"values": [0.3], "sd": 0.0}, "has an sd that is not that of its values"),
        ({"values": []}, "has no values, one per seed"),
        ({"values": [-0.4, 1.0]}, "has a value outside 0 to 1"),
        ({"values": [20, 40], "mean": 30, "sd": 14.14}, "has a value outside 0 to 1"),
        ({"split": "valid"}, "is no test figure"),
        ({"selected_by": "test"}, "is no test figure"),
        ({"ablation": "no text"}, "is no test figure"),
        ({"fingerprint": ""}, "names no model, features, protocol or fingerprint"),
        ({"k": 0}, "has a cutoff below 1"),
        ({"k": 10}, "mine on theirs has no recall at 20"),
        ({"model": "x" * 200}, "'results.0.model': string should have at most 120"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path: Path, row: dict[str, Any], fault: str) -> None:
    path = written(tmp_path, RUN | {"results": [ROW | row]})
    with pytest.raises(UserError, match=fault) as e:
        contributed.read_run(path)
    assert str(e.value).startswith(f"{path}: ")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"results": []}, "'results': list should have at least 1 item"),
        ({"results": [ROW, ROW]}, "row 1 of results repeats an earlier row"),
        ({"results": [ROW, ROW | {"fingerprint": "0" * 16}]}, "row 1 of results is of another protocol"),
        ({"by": ""}, "'by': string should have at least 1 character"),
        ({"date": "yesterday"}, "'date': input should be a valid date"),
        ({"release": "latest"}, "'release': string should match pattern"),
        ({"figures": []}, "unknown key 'figures'"),
    ],
)
def test_a_run_that_lacks_something_is_refused(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        contributed.read_run(written(tmp_path, RUN | change))


def test_the_command_shows_a_run_as_text(tmp_path: Path) -> None:
    hostile = RUN | {"by": "<script>alert(1)</script>"}
    page = tmp_path / "page.html"
    assert alignrec("leaderboard", written(tmp_path, hostile), "--to", page).exit_code == 0
    assert "&lt;script&gt;alert(1)" in page.read_text()
    assert "<script>alert" not in page.read_text()
    broken = copy.deepcopy(RUN)
    del broken["by"]
    assert "'by' is required; see docs/results.md" in error_line(alignrec("leaderboard", written(tmp_path, broken)))


def test_a_release_makes_a_file(tmp_path: Path) -> None:
    release = releases.published(toy.outputs(tmp_path)).release
    path = tmp_path / "results.json"
    _contribute.main([str(release), "--by", "Jane Doe", "--source", "https://example.org", "--to", str(path)])
    run = contributed.read_run(path)
    assert run.release == io.sha256(release / "manifest.json")
    ((group, entries),) = leaderboard.read_entries(path).items()
    ((of_release, others),) = leaderboard.read_entries(release).items()
    assert group == of_release
    assert {(e.model, e.features, e.headline) for e in entries} == {(e.model, e.features, e.headline) for e in others}
