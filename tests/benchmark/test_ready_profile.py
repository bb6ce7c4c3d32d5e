"""profiles/study.yaml turns on every table of the article; docs/study.md names them."""

from pathlib import Path

import pytest
import shipped
import shops
import toy
import yaml

import schemas
from pipeline import io
from pipeline.encode.params import MODALITIES, variant
from pipeline.run import running
from stages import benchmark, study
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


@pytest.mark.usefixtures("one_process")
def test_a_small_run_of_it_has_a_curve_and_the_tail(tmp_path: Path) -> None:
    layout = shops.outputs(tmp_path)
    for n, modality in enumerate(MODALITIES, start=1):
        shops.write_set(layout, variant("f", modality), shops.content(n))
    own = yaml.safe_load(PROFILE.read_text())["study"]
    small = toy.params(
        train={"features": "f", "dim": 4, "batch_size": 512, "epochs": 1},
        benchmark={"models": ["itemknn", "alignrec"], "features": ["f"], "seeds": 1, "ks": [5, 20]},
        study=own | {"mask": own["mask"] | {"seeds": 1}, "sweeps": {}},
    )
    for stage, main in (("benchmark", benchmark.main), ("study", study.main)):
        with running(stage, "shop", small, tmp_path) as run:
            main(run)
    mask, tail = (io.read_table(layout.study(part), schemas.STUDY[part]) for part in ("mask", "tail"))
    assert sorted({*mask["ratio"].to_pylist()}) == [n / 10 for n in range(11)]
    assert len(mask) == 1 + 2 * 10
    assert {*tail["model"].to_pylist()} == {"itemknn", "alignrec"}
    assert {*tail["fingerprint"].to_pylist()} == {*mask["fingerprint"].to_pylist()}
