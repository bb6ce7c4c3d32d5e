"""profiles/arms.yaml: the arms of docs/pretraining.md, beside the recipe of `sample`."""

from pathlib import Path

import shipped

from pipeline.study.settings import arm_params, pretrained
from stages.params import load

ROOT = Path(__file__).parents[2]
PROFILE = shipped.root() / "profiles" / "arms.yaml"
ARTICLE = {"summary": 0, "content": 0, "distill": 0, "itc": 0, "collaborative": 0}


def test_its_recipe_is_that_of_sample() -> None:
    arms, sample = load(PROFILE), load(shipped.root() / "params.yaml")
    for section in ("interactions", "pretrain", "encode", "encoders", "graph", "train", "benchmark"):
        assert getattr(arms, section) == getattr(sample, section), section


def test_the_article_s_own_objective_is_an_arm() -> None:
    own = arm_params(load(PROFILE), "article").pretrain.model_dump()
    assert {key: own[key] for key in ARTICLE} == ARTICLE
    assert (own["words"], own["cls_pass"], own["cls_read"]) == ("random", "masked", "plain")


def test_every_arm_is_another_encoder() -> None:
    params = load(PROFILE)
    assert len(pretrained(params)) == 1 + len(params.study.arms)
    assert [name for name in params.study.arms if arm_params(params, name).pretrain.collaborative] == ["collaborative"]


def test_the_documentation_names_the_command_and_the_arms() -> None:
    page = (ROOT / "docs" / "pretraining.md").read_text()
    assert "alignrec study sample --params profiles/arms.yaml" in page
    assert "`collaborative`" in page
