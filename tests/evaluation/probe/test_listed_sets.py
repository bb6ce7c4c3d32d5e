"""Sets that `probe.features` lists are judged as among all."""

from pathlib import Path
from typing import Any

import pytest
from commands import alignrec

from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout

PROJECT = """datasets: [s]
sources: {s: {kind: sample, users: 400, items: 260}}
encode: {encoders: [tfidf]}
beit3: {sets: []}
combine: {sets: {linear: {}}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listed")
    (folder / "params.yaml").write_text(PROJECT)
    for stage in ("download", "interactions", "items", "encode", "combine", "probe"):
        done = alignrec(stage, "s", cwd=folder)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def of_all(project: Path) -> dict[str, Any]:
    """Figures of all sets."""
    layout = Layout(project / "outputs", "s")
    assert set(io.read_json(layout.run_record("probe"))["params"]) == {"ks", "width"}
    return io.read_json(layout.probes)


def test_listed_sets_alone_are_judged_as_among_all(project: Path, of_all: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(PROJECT + "probe: {features: [linear, shuffled]}\n")
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 0, done.output
    after = io.read_json(Layout(project / "outputs", "s").probes)
    assert after["processed"]["forms"].keys() == {"linear", "shuffled"}
    for probe in ("item_cf", "cold_items"):
        assert {"linear", "shuffled"} <= after[probe].keys()
        assert "tfidf" in of_all[probe]
        assert "tfidf" not in after[probe]
        assert after[probe]["linear"] == of_all[probe]["linear"]


def test_a_listed_set_that_was_not_made_is_named(project: Path) -> None:
    declared = PROJECT.replace("[tfidf]}", "[tfidf, cnn]}") + "probe: {features: [linear, cnn]}\n"
    (project / "params.yaml").write_text(declared)
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 0, done.output
    assert "warning: probe s: cnn: no such set was made of this dataset, so it is not judged" in done.output
    assert list(io.read_json(Layout(project / "outputs", "s").probes)["processed"]["forms"]) == ["linear"]


def test_an_unknown_set_to_judge_is_named(project: Path) -> None:
    (project / "params.yaml").write_text(PROJECT + "probe: {features: [liner]}\n")
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 1
    assert "'probe.features': no 'liner'; did you mean 'linear'?" in done.output
