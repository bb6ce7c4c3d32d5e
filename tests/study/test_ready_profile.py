"""profiles/study.yaml turns on every table of the article; docs/study.md names them."""

from pathlib import Path

import pytest
import shipped
import shops
import yaml

import schemas
from pipeline import io
from pipeline.encode.params import MODALITIES, variant
from pipeline.run import running
from pipeline.study.settings import variant_params
from stages import benchmark, study
from stages.params import Params, load

ROOT = Path(__file__).parent.parent.parent
PROFILE = shipped.root() / "profiles" / "study.yaml"
PAGE = (ROOT / "docs" / "study.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_profile_has_every_model_and_part() -> None:
    params = load(PROFILE)
    assert sorted(params.benchmark.models) == sorted(shipped.RIVALS)
    assert params.benchmark.budget > 0
    assert (params.benchmark.seeds, params.benchmark.ablation_seeds, params.study.seeds) == (5, 5, 5)
    assert params.benchmark.ablations.items() > load(shipped.root() / "params.yaml").benchmark.ablations.items()
    assert params.study.mask.ratios == [n / 10 for n in range(11)]
    assert params.study.tail
    assert "article" in params.study.variants
    swept = {key for sweep in params.study.sweeps.values() if not isinstance(sweep, str) for key in sweep}
    assert swept == {
        "train.lr", "train.cca", "train.reg", "train.uia", "train.layers", "train.item_layers", "train.temperature",
        "graph.k", "pretrain.steps",
    }  # fmt: skip


def test_every_variant_differs_from_the_recipe_by_keys_that_exist() -> None:
    params = load(PROFILE)
    objectives = {}
    for name, keys in params.study.variants.items():
        own = type(params.pretrain).model_validate(params.pretrain.model_dump() | keys)
        assert own != params.pretrain, name
        objectives[name] = own.objective
    assert objectives["article"] == "MIM + MLM"
    assert objectives["random-words"] == params.pretrain.objective


def test_the_articles_own_objective_is_one_command_on_the_sample() -> None:
    profile = shipped.root() / "profiles" / "objective.yaml"
    params = load(profile)
    (name,) = params.study.variants
    own = variant_params(params, name).pretrain
    assert (own.objective, own.hide, own.words, own.steps) == ("MIM + MLM", 0, "random", params.pretrain.steps)
    assert params.study.variants[name] == load(PROFILE).study.variants["article"]
    command = "alignrec profile objective && dvc repro"
    for text in (
        profile.read_text(),
        *((ROOT / "docs" / f"{page}.md").read_text() for page in ("pretraining", "pretraining-results")),
    ):
        assert command in text


def test_the_default_keeps_what_fits_ten_minutes() -> None:
    params = load(shipped.root() / "params.yaml")
    study, benchmark = params.study, params.benchmark
    assert (benchmark.seeds, benchmark.ablation_seeds) == (3, 3)
    assert "beit3-raw" in params.publish.features
    assert (study.mask.ratios, study.mask.seeds, study.tail, study.variants) == ([0, 0.5, 1], 1, True, {})
    assert study.sweeps == {"learning-rate": {"train.lr": [0.001, 0.003, 0.01, 0.03]}}
    assert (study.geometry.without, study.geometry.seeds) == (["cca", "reg", "uia"], 1)
    assert study.wrong.models == []


def test_the_page_names_the_command_and_every_table() -> None:
    assert "alignrec profile study" in PAGE
    for table in schemas.STUDY:
        assert f"`study.{table.partition('_')[0]}`" in PAGE


def test_the_readme_says_what_the_released_vector_is() -> None:
    own = load(shipped.root() / "params.yaml").pretrain
    (said,) = (part for part in README.split("\n\n") if part.startswith("By default `beit3` is"))
    assert own.distill
    assert (own.size, "starts from MiniLM and EfficientNet" in said, "MIM, MLM" in said) == ("mini", True, True)
    article = load(shipped.root() / "profiles" / "baby.yaml")
    assert (article.pretrain.size, article.pretrain.objective) == ("base", "MIM + MLM")
    assert article.train.features == "beit3-raw"
    assert "BEiT3-base from its official weights, MIM and MLM only, CLS itself" in said.replace("\n", " ")


@pytest.mark.usefixtures("one_process")
def test_a_small_run_of_it_has_a_curve_and_the_tail(tmp_path: Path) -> None:
    layout = shops.outputs(tmp_path)
    table = io.read_features(layout.features("f")).drop_columns(["vector"])
    for n, modality in enumerate(MODALITIES, start=1):
        path = io.shard(layout.features(variant("f", modality)), "features", 0)
        changed = table.append_column("vector", io.vectors(shops.content(n)))
        io.write_table(changed, path, schemas.features(shops.WIDTH))
    own = yaml.safe_load(PROFILE.read_text())["study"]
    small = Params.model_validate(
        {
            "datasets": ["shop"],
            "sources": {"shop": {"kind": "sample"}},
            "train": {"features": "f", "dim": 4, "batch_size": 512, "epochs": 1},
            "benchmark": {"models": ["itemknn", "alignrec"], "features": ["f"], "seeds": 1, "ks": [5, 20]},
            "study": own | {"mask": own["mask"] | {"seeds": 1}, "variants": {}, "sweeps": {}},
        }
    )
    for stage, main in (("benchmark", benchmark.main), ("study", study.main)):
        with running(stage, "shop", small, tmp_path) as run:
            main(run)
    mask, tail = (io.read_table(layout.study(part), schemas.STUDY[part]) for part in ("mask", "tail"))
    assert sorted({*mask["ratio"].to_pylist()}) == [n / 10 for n in range(11)]
    assert len(mask) == 1 + 2 * 10
    assert {*tail["model"].to_pylist()} == {"itemknn", "alignrec"}
    assert {*tail["fingerprint"].to_pylist()} == {*mask["fingerprint"].to_pylist()}
