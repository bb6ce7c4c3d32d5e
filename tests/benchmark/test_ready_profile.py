"""profiles/study.yaml turns on every table of the article; docs/study.md names them."""

from pathlib import Path

import shipped

import schemas
from stages.params import load

PROFILE = shipped.root() / "profiles" / "study.yaml"
PAGE = (Path(__file__).parents[2] / "docs" / "study.md").read_text()


def test_the_profile_has_every_model_and_part() -> None:
    params = load(PROFILE)
    assert sorted(params.benchmark.models) == sorted(shipped.RIVALS)
    assert params.benchmark.budget > 0
    assert (params.benchmark.seeds, params.benchmark.ablation_seeds, params.study.seeds) == (5, 5, 5)
    assert params.benchmark.ablations.items() > load(shipped.root() / "params.yaml").benchmark.ablations.items()
    assert params.study.mask.ratios == [n / 10 for n in range(11)]
    assert params.study.tail
    swept = {"lr", "cca", "reg", "uia", "layers", "item_layers", "temperature"}
    assert {key for sweep in params.study.sweeps.values() for key in sweep} == {
        "graph.k", *(f"train.{name}" for name in swept)
    }  # fmt: skip
    assert all(f"`study.{table}`" in PAGE for table in schemas.STUDY)
