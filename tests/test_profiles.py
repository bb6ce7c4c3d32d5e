"""profiles/article.yaml and its overlays; docs/regenerate-baby.md shows baby's."""

from pathlib import Path

import pytest
import yaml
from commands import alignrec, blocks

from alignrec.commands.params import load
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.benchmark.plan import tried_settings
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.features.names import DeclaredSets, maskable_sets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import yaml_files
from alignrec.pipeline.sources.amazon import AmazonSource

ROOT = Path(__file__).parent.parent
PROFILES = ROOT / "profiles"
PROFILE = PROFILES / "baby.yaml"
PAGE = (ROOT / "docs" / "regenerate-baby.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in blocks(PAGE, "yaml")]


@pytest.mark.parametrize(
    ("dataset", "category", "steps"),
    [("baby", "Baby", 1000), ("sports", "Sports_and_Outdoors", 2600), ("electronics", "Electronics", 8900)],
)
def test_each_profile_of_the_article_trains_what_the_article_trains(dataset: str, category: str, steps: int) -> None:
    params = load(PROFILES / f"{dataset}.yaml", dataset)
    assert params.datasets == [dataset]
    source = params.source(dataset).model_dump(include={"kind", "category"})
    assert source == {"kind": "amazon2014", "category": category}
    pretrain = params.pretrain
    assert (pretrain.size, pretrain.objective, pretrain.hide, pretrain.steps) == ("base", "MIM + MLM", 0, steps)
    files = [one and one.rsplit("/", 1)[-1].partition("_")[0] for one in (pretrain.init, pretrain.vqkd)]
    assert files == ["beit3", "vqkd"]
    assert params.train.features == "beit3-raw"
    assert "beit3-raw" in params.beit3.sets
    arms = {"no-pretraining": "beit3-official", "random-weights": "beit3-untrained", "no-cca": "beit3-raw"}
    arms |= {"image-only": "beit3-raw-text-masked", "text-only": "beit3-raw-image-masked"}
    assert {name: model_settings(params, "alignrec", name).features for name in arms} == arms
    assert not any("beit3" in (*params.publish.features, *params.benchmark.features, name) for name in arms.values())
    assert not params.beit3.whiten  # CLS itself in all sets
    assert set(params.publish.features) <= set(DeclaredSets(params, dataset).names())
    assert params.semantic_ids.features == ["beit3-raw"]
    overlay = yaml.safe_load((PROFILES / f"{dataset}.yaml").read_text())
    assert overlay.keys() <= {"extends", "datasets", "pretrain"}


@pytest.mark.parametrize(
    ("name", "dataset", "maskable"),
    [("paper", "sample", ["beit3", "minilm-cnn"]), ("baby", "baby", ["beit3-raw", "clip", "minilm-cnn"])],
)
def test_stock_features_are_masked_too(name: str, dataset: str, maskable: list[str]) -> None:
    params = load(PROFILES / f"{name}.yaml", dataset)
    assert params.study.mask.ratios
    assert maskable_sets(DeclaredSets(params, dataset).names()) == maskable


def test_the_profile_of_the_article_sweeps_its_authors_grid() -> None:
    grid = load(PROFILES / "article.yaml", "baby").study.sweeps["published-grid"]
    assert grid == {
        "train.lr": [0.0001, 0.0003, 0.0005, 0.0007, 0.001, 0.003, 0.005],
        "train.cca": [0.0001, 0.001, 0.005, 0.01, 0.1],
        "train.reg": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
    assert "175 settings" in PAGE


def test_every_model_of_the_paper_is_tuned_by_an_equal_budget() -> None:
    params = load(PROFILES / "paper.yaml", "sample")
    tried = {model: len(tried_settings(params, "sample", model)) for model in params.benchmark.models}
    assert tried.pop("contentknn") == 0  # it has no setting
    assert {*tried.values()} == {params.benchmark.budget}
    assert params.benchmark.budget > 1


def test_the_official_weights_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [a]\nsources: {a: {kind: sample}}\nbeit3: {sets: [beit3-raw, beit3-official]}\n")
    with pytest.raises(UserError, match=r"'beit3-official'.*pretrain\.init"):
        load(path)


def test_the_page_shows_the_profile_and_valid_sources() -> None:
    profile = yaml_files.read_extended(PROFILE)
    for section, keys in BLOCKS[0].items():
        assert profile[section] == (keys if isinstance(keys, list) else profile[section] | keys), section
    assert set(BLOCKS[0]["pretrain"]) == {"init", "tokenizer", "vqkd"}  # the three paths that a user changes
    assert "alignrec profile baby && dvc repro" in PAGE
    assert all(AmazonSource.model_validate(block["sources"]["baby"]).files() for block in BLOCKS[1:])


def test_the_profile_of_the_paper_keeps_the_settings_of_all_models() -> None:
    given = load(Path("params.yaml"), "sample")[Benchmark].overrides
    of_profile = load(Path("profiles/paper.yaml"), "sample")[Benchmark].overrides
    assert of_profile == given | {"vbpr": of_profile["vbpr"]}


def test_a_profile_lies_over_a_project_of_ones_own_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    own = "datasets: [mine]\nsources: {mine: {kind: tabular, interactions: a.csv, items: b.csv}}\ngraph: {k: 7}\n"
    (tmp_path / "params.yaml").write_text(own)
    overlay = "extends: params.yaml\nbenchmark: {features: [beit3, minilm-cnn, shuffled], models: [ease, alignrec]}\n"
    (tmp_path / "joined.yaml").write_text(overlay)
    done = alignrec("profile", "joined.yaml", "--to", "new.yaml", cwd=tmp_path)
    assert "joined.yaml: 'benchmark.features': no 'minilm-cnn'" in done.output
    assert not (tmp_path / "new.yaml").exists()

    joined = "combine: {sets: {minilm-cnn: {kind: concat, of: [minilm, cnn]}}}\n"
    (tmp_path / "params.yaml").write_text(own + joined)
    assert alignrec("profile", "joined.yaml", "--to", "new.yaml", cwd=tmp_path).exit_code == 0
    params = load(tmp_path / "new.yaml")
    assert (params.datasets, params.graph.k, params.benchmark.models) == (["mine"], 7, ["ease", "alignrec"])
    done = alignrec("profile", "baby", "--to", "new.yaml", cwd=tmp_path)
    assert done.output == (
        "error: new.yaml: has changes that git does not have; commit it, or overwrite it with --force\n"
    )
    assert load(tmp_path / "new.yaml").datasets == ["mine"]
    assert alignrec("profile", "baby", "--to", "new.yaml", "--force", cwd=tmp_path).exit_code == 0
    assert load(tmp_path / "new.yaml").datasets == ["baby"]
    done = alignrec("profile", "study", cwd=tmp_path)
    assert done.output == "error: no profile 'study'; there are article, baby, electronics, paper, sports\n"
