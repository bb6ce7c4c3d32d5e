"""Feature sets as nodes: what each is made of, in which order they are made, and what an edit makes again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toy

from pipeline import code
from pipeline.errors import UserError
from pipeline.features import write
from pipeline.features.imported import Import
from pipeline.features.registry import FEATURES
from pipeline.features.sets import FeatureSets
from pipeline.layout import Layout
from pipeline.run import running
from pipeline.vectors.matching import File
from stages.encode import main
from stages.params import Params, load

ENCODERS: dict[str, dict[str, Any]] = {
    "side": {"kind": "concat", "of": ["white", "cnn"]},
    "white": {"kind": "whitened", "of": "tfidf"},
    "blind": {"kind": "masked", "of": "minilm-cnn", "modality": "image"},
    "near": {"kind": "mapped", "of": "ready"},
}


def sets(*listed: str, controls: tuple[str, ...] = ("shuffled",)) -> FeatureSets:
    given = toy.params(encode={"encoders": list(listed), "controls": list(controls)}, encoders=ENCODERS)
    imports = {"ready": Import(File(Path("ready.npy"))), "minilm-pictures": Import(File(Path("x.b")), before="minilm")}
    return FeatureSets(Layout(Path("nowhere"), "shop"), given.encode, given.encoders, imports)


def test_each_is_made_after_what_it_is_made_of() -> None:
    found = sets("side", "near", "white", "tfidf", "minilm")
    assert found.order == [
        *("tfidf", "white", "side", "ready", "near", "minilm", "minilm-pictures", "shuffled")
    ]  # cnn, a part of side, is not written
    assert [node.name for node in found["side"].of] == ["white", "cnn"]
    assert [node.listed for node in found["side"].of] == [True, False]
    assert [node.name for node in found["shuffled"].of] == ["side"]
    assert sets().order == ["ready", "minilm-pictures", "shuffled"]


def test_code_is_that_of_a_kind_and_of_its_parts() -> None:
    found = sets("side", "white", "tfidf", "blind", "minilm-cnn")
    for name, own in {
        "tfidf": {"encode/tfidf"},
        "white": {"features/linear", "encode/tfidf"},
        "side": {"features/linear", "encode/tfidf", "encode/cnn"},
        "blind": {"encode/minilm", "encode/cnn"},
        "ready": set(),
    }.items():
        files = {path.relative_to(code.ROOT).as_posix() for path in code.closure(*write.modules(found[name]))}
        kinds = [f"features/{kind}" for kind in ("linear", "mapped")]
        kinds += [f"encode/{kind}" for kind in ("tfidf", "cnn", "minilm")]
        assert {kind for kind in kinds if f"pipeline/{kind}.py" in files} == own
        assert name == "ready" or not files & {
            f"pipeline/{one}.py" for one in ("features/registry", "features/sets", "encode/registry")
        }
        assert ("pipeline/encode/batching.py" in files) == (name != "ready")


@pytest.mark.parametrize("kind", FEATURES.built_in)
@pytest.mark.parametrize(
    ("of", "says"),
    [
        ("mine", "'encoders.mine.of': it is a part of itself, by mine -> mine"),
        ("tfdif", "'encoders.mine.of': no 'tfdif'; did you mean 'tfidf'?"),
        ("3", "'encoders.mine.of'"),
        ("null", "'encoders.mine.of'"),
    ],
)
def test_what_cannot_be_made_is_one_line_that_names_the_key(tmp_path: Path, kind: str, of: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    given = f"[{of}, tfidf]" if kind == "concat" else of
    path.write_text(
        "datasets: [shop]\nsources: {shop: {kind: sample}}\nencode: {encoders: [mine, tfidf]}\n"
        f"encoders: {{mine: {{kind: {kind}, of: {given}}}}}\nbenchmark: {{features: [tfidf]}}\n"
    )
    with pytest.raises(UserError) as e:
        load(path)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_a_set_that_another_dataset_imports_fails_alone(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    given: Params = toy.params(
        encode={"encoders": ["near", "tfidf"], "controls": []}, encoders={"near": ENCODERS["near"]}
    )
    with running("encode", "shop", given, layout.root) as run, pytest.raises(UserError) as e:
        main(run)
    assert str(e.value) == (
        "encode shop: 1 of 2 feature sets failed: near: 'encoders.near.of': shop has no feature set 'ready'; "
        "import it or name another"
    )
    assert layout.feature_sets() == ["tfidf"]
