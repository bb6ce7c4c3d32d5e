"""profiles/study.yaml turns on every table of the article; docs/study.md names them."""

from pathlib import Path

import yaml

from pipeline.models import MODELS
from pipeline.params import load

ROOT = Path(__file__).parent.parent.parent
PROFILE = ROOT / "profiles" / "study.yaml"
PAGE = (ROOT / "docs" / "study.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_profile_has_every_model_and_part() -> None:
    params = load(PROFILE)
    published = [name for name in MODELS if not name.endswith("-improved")]
    assert sorted(params.benchmark.models) == sorted(published)
    assert params.benchmark.budget > 0
    assert (params.benchmark.seeds, params.benchmark.ablation_seeds, params.study.seeds) == (5, 5, 5)
    assert params.benchmark.ablations == load(ROOT / "params.yaml").benchmark.ablations
    assert params.study.mask.ratios == [n / 10 for n in range(11)]
    assert params.study.tail
    assert {"article", "collaborative"} <= params.study.arms.keys()
    swept = {key for sweep in params.study.sweeps.values() if not isinstance(sweep, str) for key in sweep}
    assert swept == {
        "train.lr", "train.cca", "train.reg", "train.uia", "train.layers", "train.item_layers", "train.temperature",
        "graph.k", "pretrain.epochs",
    }  # fmt: skip


def test_every_arm_differs_from_the_recipe_by_keys_that_exist() -> None:
    params = load(PROFILE)
    objectives = {}
    for name, keys in params.study.arms.items():
        own = type(params.pretrain).model_validate(params.pretrain.model_dump() | keys)
        assert own != params.pretrain, name
        objectives[name] = own.objective
    assert objectives["article"] == "MIM + MLM"
    assert objectives["taught"] == params.pretrain.objective
    assert "1 collaborative" in objectives["collaborative"]


def test_the_default_keeps_what_fits_ten_minutes() -> None:
    study = load(ROOT / "params.yaml").study
    assert (study.mask.ratios, study.mask.seeds, study.tail, study.arms, study.sweeps) == ([0.5], 3, True, {}, {})


def test_the_page_names_the_command_and_every_table() -> None:
    assert "cp profiles/study.yaml params.yaml && dvc repro" in PAGE
    for name in ("mask", "tail", "arms", "sweeps"):
        assert f"`study/<dataset>/{name}.parquet`" in PAGE


def test_the_readme_says_what_the_released_vector_is() -> None:
    own = load(ROOT / "params.yaml").pretrain
    assert f"pre-trained by {own.objective}." in README.replace("\n", " ")
    stages = yaml.safe_load((ROOT / "pipeline/stages.yaml").read_text())["stages"]
    assert "CLS, whitened" in stages["encode"]["does"]
