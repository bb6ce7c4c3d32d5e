"""profiles/article.yaml and its overlays: what is trained on what; docs/regenerate-baby.md shows baby's."""

import re
import shutil
from pathlib import Path

import pytest
import shipped
import yaml
from toyproject import project, run

from benchmarks import _raw2014, _rehearsal
from pipeline.benchmark.plan import entries
from pipeline.benchmark.settings import model_settings
from pipeline.config import document
from pipeline.errors import UserError
from pipeline.features import registry as features_registry
from pipeline.features.registry import feature_sets
from pipeline.sources.amazon import Amazon2014
from stages.order import STAGES
from stages.params import load

ROOT = Path(__file__).parent.parent
PROFILES = ROOT / "profiles"
PROFILE = PROFILES / "baby.yaml"
PAGE = (ROOT / "docs" / "regenerate-baby.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


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
    assert "beit3-raw" in params.encode.encoders
    arms = {"no-pretraining": "beit3-official", "random-weights": "beit3-untrained", "no-cca": "beit3-raw"}
    arms |= {"image-only": "beit3-raw-text-masked", "text-only": "beit3-raw-image-masked"}
    assert {name: model_settings(params, "alignrec", name).features for name in arms} == arms
    assert not any("beit3" in (*params.publish.features, *params.benchmark.features, name) for name in arms.values())
    for name in ("beit3-raw", "beit3-official", "beit3-untrained"):  # CLS itself in all three
        assert not features_registry.settings(params.encoders, name).whiten
    assert set(params.publish.features) <= set(params.encode.encoders)
    assert params.semantic_ids.features == ["beit3-raw"]
    overlay = yaml.safe_load((PROFILES / f"{dataset}.yaml").read_text())
    assert overlay.keys() <= {"extends", "datasets", "pretrain"}


def test_the_official_weights_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [a]\nsources: {a: {kind: sample}}\nencode: {encoders: [beit3-raw, beit3-official]}\n")
    with pytest.raises(UserError, match=r"'beit3-official'.*pretrain\.init"):
        load(path)


def test_it_has_every_model_five_seeds_all_ablations_and_the_features_of_2014() -> None:
    params = load(PROFILE)
    benchmark = params.benchmark
    assert sorted(benchmark.models) == sorted(shipped.RIVALS)
    assert (benchmark.seeds, benchmark.ablation_seeds) == (5, 5)
    studied = load(shipped.root() / "profiles/study.yaml").benchmark.ablations
    assert benchmark.ablations.keys() - studied.keys() == {"random-weights"}
    for name, changed in studied.items():  # but for feature sets, which have other names there
        assert "features" in changed or benchmark.ablations[name] == changed
    assert f"{len(entries(params))} trainings" in PAGE
    assert {"beit3-raw", "cnn4096", "minilm", "minilm-cnn4096"} <= set(feature_sets(params, "baby"))
    assert "minilm-cnn4096" in params.benchmark.features
    assert params.benchmark.modalities["minilm-cnn4096"] == [384, 4096]


def test_the_page_shows_the_profile_and_valid_sources() -> None:
    profile = document.read_extended(PROFILE)
    for section, keys in BLOCKS[0].items():
        assert profile[section] == (keys if isinstance(keys, list) else profile[section] | keys), section
    assert set(BLOCKS[0]["pretrain"]) == {"init", "tokenizer", "vqkd"}  # the three paths that a user changes
    assert "alignrec profile baby && dvc repro" in PAGE
    assert all(Amazon2014.model_validate(block["sources"]["baby"]).files() for block in BLOCKS[1:])


@pytest.mark.usefixtures("shims")
def test_the_command_makes_baby_and_leaves_what_is_made_of_another_dataset(tmp_path: Path) -> None:
    """DVC runs the first stage, on files; the others follow, and `sample` is neither built nor forgotten."""
    folder = project(tmp_path / "clone")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "dvc.lock", folder)
    before = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    before.pop("download@baby", None)  # of whoever made it here
    _raw2014.write(folder / "raw", 60)
    run("alignrec", "profile", "baby", cwd=folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["sources"] = _rehearsal.parameters(params, Path("raw"), "small", 60)["sources"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run("alignrec", "new", cwd=folder)
    run("dvc", "repro", "download@baby", cwd=folder)
    after = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert {name: stage for name, stage in after.items() if name != "download@baby"} == before
    assert (folder / "outputs/download/baby/image_features_Baby.b").is_file()
    due = run("dvc", "stage", "list", "--name-only", cwd=folder).split()
    assert due == [f"{stage}@baby" for stage in STAGES]
