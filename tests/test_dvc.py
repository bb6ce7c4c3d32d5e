"""dvc.yaml says what the imports say: an edit re-runs exactly what it affects."""

from pathlib import Path

import pytest
import yaml

from pipeline import code
from pipeline.layout import STAGES
from pipeline.params import Params

ROOT = Path(__file__).parent.parent
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_dvc_yaml_lists_the_stages_in_order() -> None:
    assert list(DVC) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_imports(stage: str) -> None:
    listed = [d for d in DVC[stage]["deps"] if not d.startswith("outputs/")]
    assert listed == code.dependencies(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_writes_where_its_name_says(stage: str) -> None:
    assert [list(o) for o in DVC[stage]["outs"]] == [[f"outputs/{stage}/${{item.dataset}}"]]
    assert DVC[stage]["cmd"] == f"alignrec {stage} ${{item.dataset}}"
    assert DVC[stage]["desc"]


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_stages_sections(stage: str) -> None:
    sections = {p for p in DVC[stage]["params"] if not p.startswith("sources.")}
    assert stage in sections
    assert sections <= {field.alias or name for name, field in Params.model_fields.items()}


def test_inputs_come_from_earlier_stages() -> None:
    order = list(STAGES)
    for stage, spec in DVC.items():
        for dep in spec["deps"]:
            if dep.startswith("outputs/"):
                assert order.index(dep.split("/")[1]) < order.index(stage)
