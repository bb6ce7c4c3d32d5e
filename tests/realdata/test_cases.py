"""The real data sets' files, what a variant takes over, and the sentences; none of it reads ../shared."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import toy
import yaml
from realdata import __main__ as command
from realdata import cases, verdicts

import schemas
from pipeline import io
from pipeline.encode.registry import ENCODERS
from pipeline.interactions.params import Interactions
from stages.params import load


@pytest.fixture
def known(tmp_path: Path) -> dict[str, cases.Case]:
    return cases.cases(tmp_path)


@pytest.mark.parametrize("name", cases.NAMES)
def test_parameter_files_are_valid(name: str, known: dict[str, cases.Case]) -> None:
    if name.startswith("movies") and not ("tfidf" in ENCODERS and "cold_share" in Interactions.model_fields):
        pytest.skip("the encoder tfidf or the protocol cold-items is not there")
    params = load(known[name].params)
    assert params.datasets == [known[name].layout.dataset]
    assert params.benchmark.control == known[name].control


@pytest.mark.parametrize("name", ["industrial", "tiktok"])
def test_a_league_is_of_the_same_data(name: str, known: dict[str, cases.Case]) -> None:
    league, own = load(cases.HERE / f"{name}_league.yaml", name), load(known[name].params, name)
    assert (league.sources, league.train.features) == (own.sources, own.train.features)
    assert (league.benchmark.splits, league.benchmark.features[0]) == (2, own.train.features)


@pytest.mark.parametrize("name", cases.VARIANTS)
def test_a_variant_differs_in_interactions_alone(name: str, known: dict[str, cases.Case]) -> None:
    base_name, _ = cases.VARIANTS[name]
    ours, base = (yaml.safe_load(known[n].params.read_text()) for n in (name, base_name))
    assert ours.pop("interactions")
    assert ours.keys() == base.keys()
    assert ours["sources"] == base["sources"]
    assert known[name].layout.root != known[base_name].layout.root
    assert known[name].layout.dataset == known[base_name].layout.dataset


def test_a_variant_begins_with_the_newer_outputs_of_its_base(known: dict[str, cases.Case]) -> None:
    case, base = known["movies_cold"], known["movies"].layout
    for stage in ("encode", "train"):
        io.write_json(base.run_record(stage), {"made": "by movies"})
        case.adopt(stage)
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies"}
    assert not case.layout.run_record("train").exists()  # it depends on the split

    io.write_json(case.layout.run_record("encode"), {"made": "by movies_cold"})
    times = base.run_record("encode").stat().st_mtime
    os.utime(case.layout.run_record("encode"), (times + 9, times + 9))
    case.adopt("encode")
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies_cold"}

    os.utime(base.run_record("encode"), (times + 99, times + 99))
    case.adopt("encode")
    assert io.read_json(case.layout.run_record("encode")) == {"made": "by movies"}
    shutil.rmtree(base.root / "encode")
    case.adopt("encode")
    assert case.layout.run_record("encode").exists()


def write_tests(tmp_path: Path, rows: list[tuple[str, str, str, float, float]]) -> toy.Layout:
    """Write tests of (protocol, model, features, difference, p) against shuffled rows, and another one."""
    layout = toy.Layout(tmp_path, "shop")
    shared = {"dataset": "shop", "ablation_a": "", "ablation_b": "", "k": 20, "seeds": 5, "n": 9, "mean_b": 0.1}
    tests = [
        shared
        | {"protocol": protocol, "fingerprint": protocol, "model_a": model, "model_b": model, "features_a": features}
        | {"features_b": "shuffled", "metric": metric, "mean_a": 0.1 + d, "difference": d, "low": d, "high": d}
        | {"p": p, "p_holm": p}
        for protocol, model, features, d, p in rows
        for metric in ("recall", "ndcg")
    ]
    other = tests[0] | {"model_b": "bpr", "features_b": "none"}
    io.write_table(pa.Table.from_pylist([*tests, other], schemas.TESTS), layout.tests, schemas.TESTS)
    return layout


def test_sentences_say_what_the_tests_say(tmp_path: Path) -> None:
    layout = write_tests(
        tmp_path,
        [
            ("all items", "mgcn", "cnn", 0.002, 0.3),
            ("all items", "mgcn", "minilm", 0.02, 0.001),
            ("all items", "mgcn", "tfidf", 0.01, 0.049),
            ("all items", "mgcn", "random", 0.03, 0.001),
            ("all items", "freedom", "minilm", -0.01, 0.01),
            ("all items", "freedom", "cnn", -0.01, 0.05),
            ("cold alone", "mgcn", "cnn", 0.0, 1.0),
        ],
    )
    rows = verdicts.of("shop_cold", layout, "shuffled")
    assert len(rows) == 7
    assert verdicts.sentences(rows) == [
        "shop_cold (all items), freedom: shuffled rows do as well as cnn; "
        "minilm (-0.0100) is worse than shuffled rows.",
        "shop_cold (all items), mgcn: minilm (+0.0200) and tfidf (+0.0100) beat shuffled rows; "
        "shuffled rows do as well as cnn.",
        "shop_cold (all items): features matter under mgcn, not under freedom.",
        "shop_cold (cold alone), mgcn: shuffled rows do as well as cnn.",
        "shop_cold (cold alone): features do not matter under any model.",
    ]
    assert verdicts.table(rows).row_count == 7
    assert verdicts.of("shop", layout, None) == []


def test_a_misspelt_name_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"'moveis'.*'movies'"):
        command.main(["moveis"])
