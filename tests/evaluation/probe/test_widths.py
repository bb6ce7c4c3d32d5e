"""Which feature sets are judged, and at which widths: equal to cutting them by hand, and the stage's table."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from commands import alignrec

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe import judge, widths
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.release.probes import read_probes
from alignrec.pipeline.report.probes import width_tables
from alignrec.pipeline.runtime.layout import Layout

PROJECT = """datasets: [s]
sources: {s: {kind: sample, users: 400, items: 260}}
encode: {encoders: [tfidf]}
beit3: {sets: []}
combine: {sets: {linear: {}, mapped: {of: tfidf}, both: {kind: concat, of: [tfidf, linear]}}}
"""
WIDTHS = "probe: {widths: [32, 16, 4096]}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("widths")
    (folder / "params.yaml").write_text(PROJECT)
    for stage in ("download", "interactions", "items", "encode", "combine", "probe"):
        done = alignrec(stage, "s", cwd=folder)
        assert done.exit_code == 0, done.output
    return folder


class Probed(NamedTuple):
    before: dict[str, Any]  # without widths
    recorded: dict[str, Any]  # parameters of that run
    after: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def probed(project: Path) -> Probed:
    """Figures of the stage without widths, and with them."""
    layout = Layout(project / "outputs", "s")
    before = io.read_json(layout.probes)
    recorded = io.read_json(layout.run_record("probe"))["params"]

    (project / "params.yaml").write_text(PROJECT + WIDTHS)
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 0, done.output
    return Probed(before, recorded, io.read_json(layout.probes), " ".join(done.output.split()))


def test_widths_add_a_table_and_change_nothing_else(project: Path, probed: Probed) -> None:
    before, said, layout = probed.before, probed.said, Layout(project / "outputs", "s")
    assert "widths" not in before
    assert set(probed.recorded) == {"ks", "width"}

    after = dict(probed.after)
    assert read_probes(layout.probes) == after  # as a release is read
    found = after.pop("widths")
    assert after == before

    shown = {name: [r["width"] for r in found["rows"] if r["features"] == name] for name in ("linear", "mapped")}
    assert [w[:2] for w in shown.values()] == [[16, 32]] * 2
    assert found["left_out"]["both"] == "its parts are side by side"
    assert {"random", "shuffled", "constant"} <= found["left_out"].keys()
    whole = {row["features"]: row for row in found["rows"]}  # the last row of a set has all columns
    for name, row in whole.items():
        assert row["width"] == io.width(layout.features(name))
        for probe in widths.JUDGED_BY:
            assert row[probe] == before[probe][name]
    assert "Leading columns" in said
    assert "Left out: both (its parts are side by side)" in said
    assert "Leak: of mapped," in said


def test_a_row_has_the_figures_of_a_set_that_is_cut_by_hand(project: Path, probed: Probed) -> None:
    layout = Layout(project / "outputs", "s")
    vectors = io.map_features(layout.features("linear"))
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    # figures are of directions: as authors do, a cut vector is scaled to length 1 again
    cut = vectors[:, :16] / np.linalg.norm(vectors[:, :16], axis=1, keepdims=True).clip(1e-12)
    judged, _ = judge.judge_sets(Data(interactions, len(vectors)), [("cut", cut)], [5, 10, 20, 50], [], 0, 8)
    (row,) = [r for r in probed.after["widths"]["rows"] if (r["features"], r["width"]) == ("linear", 16)]
    for probe in widths.JUDGED_BY:
        assert row[probe] == pytest.approx(judged["probes"][probe]["cut"], abs=1e-6)


def test_a_set_that_learned_is_cut_after_it_is_refitted() -> None:
    vectors = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    refit = widths.cut_refit(lambda cold: vectors + np.float32(len(cold)), 2)
    assert refit(np.arange(5)).tolist() == [[5, 6], [9, 10], [13, 14]]


@pytest.mark.parametrize(
    ("fingerprint", "listed", "why"),
    [
        ({"kind": "tfidf"}, False, ""),
        ({"kind": "linear", "reduced": True}, False, ""),
        ({"kind": "linear", "reduced": False}, False, "side by side"),
        ({"kind": "linear", "reduced": False, "reads": ["text"], "parts": {"tfidf": {}}}, False, ""),
        ({"kind": "concat"}, True, "side by side"),
        ({"kind": "huggingface", "dim": 256}, False, ""),
        ({"kind": "huggingface", "dim": None}, False, "no record"),
        ({"kind": "huggingface", "dim": None}, True, ""),
        ({"kind": "huggingface", "dim": 8, "join": "concat", "reads": ["image", "text"]}, True, "one modality"),
        ({"kind": "huggingface", "dim": 8, "join": "concat", "reads": ["text"]}, False, ""),
        ({}, False, "no record"),
        ({}, True, ""),
    ],
)
def test_which_sets_have_leading_columns(fingerprint: dict[str, Any], listed: bool, why: str) -> None:
    found = widths.explain_disorder(fingerprint, listed)
    assert why in found
    assert bool(found) == bool(why)


def test_an_unknown_matryoshka_set_is_named(project: Path) -> None:
    (project / "params.yaml").write_text(PROJECT + "probe: {widths: [8], matryoshka: [tfdif]}\n")
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 1
    assert "'probe.matryoshka': no 'tfdif'; did you mean 'tfidf'?" in done.output


def test_listed_sets_alone_are_judged_as_among_all(project: Path, probed: Probed) -> None:
    (project / "params.yaml").write_text(PROJECT + "probe: {features: [linear, shuffled]}\n")
    done = alignrec("probe", "s", cwd=project)
    assert done.exit_code == 0, done.output
    after = io.read_json(Layout(project / "outputs", "s").probes)
    assert after["processed"]["forms"].keys() == {"linear", "shuffled"}
    for probe in ("item_cf", "cold_items"):
        assert {"linear", "shuffled"} <= after[probe].keys()
        assert "tfidf" in probed.before[probe]
        assert "tfidf" not in after[probe]
        assert after[probe]["linear"] == probed.before[probe]["linear"]


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


def test_probes_without_widths_have_no_table() -> None:
    assert width_tables(None) == width_tables({"zero_shot": {"skipped": "no reason"}}) == []
