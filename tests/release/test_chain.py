"""Derived sets carry their chain, so that new items get the vectors that they would have had."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save, save_file
from shop import featured, releases, toy

import alignrec
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import attest, manifest
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.params import Publish
from alignrec.pipeline.release.read import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a release of `linear` without its parts."""
    layout = toy.outputs(tmp_path_factory.mktemp("made"))
    sets = {
        "both": {"kind": "concat", "of": ["minilm", "descriptors"]},
        "linear": {"of": ["both", "tfidf"], "width": 4},
    }
    params = featured.params("minilm", "descriptors", "tfidf", sets=sets)
    featured.stage(layout, params)
    releases.published(layout, params.with_sections(Publish(features=["linear"])))
    return layout.root


@pytest.fixture(scope="module")
def release(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the release in another folder."""
    return Path(shutil.copytree(made / "publish/shop/release", tmp_path_factory.mktemp("alone") / "release"))


def test_the_release_carries_the_parts_and_says_who_needs_them(release: Path) -> None:
    assert list(verify(release))
    assert ReleasedEncoders(release).names == ["linear"]
    files = {f.path: f.used_by for f in manifest.load(release).files if f.path.startswith("encoders/")}
    assert set(files["encoders/tfidf/tfidf.safetensors"]) >= {"tfidf", "linear"}
    assert files["encoders/linear/maps.safetensors"] == ["linear"]
    card = (release / "README.md").read_text()
    assert "linear: both" in card
    assert "linear: tfidf" not in card  # which no network made


def test_it_is_attested_and_an_encoder_in_python(made: Path, release: Path) -> None:
    outcome = attest.attest(release, attest.open_inputs("shop", None, made, release), 6)
    assert outcome.agrees
    assert set(outcome.rows[0].cosines) == {"linear"}
    vectors = alignrec.encoder(release, "linear").encode(texts=["red apple", None])
    assert vectors[0].any()
    assert not vectors[1].any()


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "release"))


CHAIN, MAPS = "encoders/linear/chain.json", "encoders/linear/maps.safetensors"


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def arrays(copy: Path, name: str, change: Change) -> None:
    save_file({key: np.ascontiguousarray(x) for key, x in change(load_file(copy / name)).items()}, copy / name)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"part": 9}, ""),
        ({"first": 0, "last": 1 << 21}, "less than or equal"),
        ({"last": 1}, "tensor 'block-0\\.mean' is"),
        ({"weight": -1}, "greater than or equal"),
    ],
)
def test_a_foreign_chain_is_refused_by_verify_and_load(copy: Path, change: dict[str, int], fault: str) -> None:
    chain = json.loads((copy / CHAIN).read_text())
    chain["blocks"][0] |= change
    (copy / CHAIN).write_text(json.dumps(chain))
    releases.relist(copy, CHAIN)
    if "part" not in change:  # which the widths of the parts decide
        with pytest.raises(UserError, match=fault):
            list(verify(copy))
    with pytest.raises(UserError, match="chain"):
        ReleasedEncoders(copy).load("linear")


@pytest.mark.parametrize("name", [MAPS, "encoders/tfidf/tfidf.safetensors"])
def test_maps_that_are_not_finite_are_refused(copy: Path, name: str) -> None:
    arrays(copy, name, lambda x: {key: np.full_like(one, np.nan) for key, one in x.items()})
    releases.relist(copy, name)
    with pytest.raises(UserError, match="not finite"):
        list(verify(copy))
    with pytest.raises(UserError, match="again"):
        ReleasedEncoders(copy).load("linear")


WRONG_MAPS: dict[str, tuple[Change, str]] = {
    "does not fit the next": (lambda x: x | {"last.map": x["last.map"][1:]}, r"chain .*'last\.map'"),
    "unknown": (lambda x: x | {"ridge.map": x["last.map"]}, r"an unknown map ridge\.map"),
    "narrow": (lambda x: x | {"last.map": x["last.map"][:, :-1]}, "gives 3 numbers, and the feature set has 4"),
}


@pytest.mark.parametrize(("change", "fault"), WRONG_MAPS.values(), ids=WRONG_MAPS)
def test_a_map_that_does_not_fit_is_refused_by_verify_and_load(copy: Path, change: Change, fault: str) -> None:
    arrays(copy, MAPS, change)
    releases.relist(copy, MAPS)
    for refuse in (lambda: list(verify(copy)), lambda: ReleasedEncoders(copy).load("linear")):
        with pytest.raises(UserError, match=fault):
            refuse()


def edited(key: str, value: object) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        facts = json.loads(content)
        (facts["settings"] if key in facts["settings"] else facts)[key] = value
        return json.dumps(facts).encode()

    return change


def negated(content: bytes) -> bytes:
    return save({name: -x for name, x in load(content).items()})


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("minilm/encoder.json", edited("max_tokens", 8), "max_tokens"),
        ("minilm/encoder.json", edited("reads", ["image"]), "reads"),
        ("descriptors/encoder.json", edited("image_size", 64), "image_size"),
        ("linear/encoder.json", edited("image_quality", 10), "image_quality"),
        ("linear/encoder.json", edited("parts", ["tfidf", "both"]), "blocks"),
        ("linear/chain.json", lambda content: content.replace(b"true", b"false"), "blocks"),
        ("linear/maps.safetensors", negated, "weights"),
        ("tfidf/tfidf.safetensors", negated, "weights"),
        ("tfidf/words.json", lambda content: json.dumps(json.loads(content)[::-1]).encode(), "weights"),
    ],
)
def test_the_fingerprint_holds_settings_weights_and_maps(
    copy: Path, path: str, change: Callable[[bytes], bytes], said: str
) -> None:
    releases.put(copy, f"encoders/{path}", change((copy / "encoders" / path).read_bytes()))
    said = f"{path.split('/')[0]}/encoder.json: encodes into another space than .*: {said}"
    with pytest.raises(UserError, match=said):
        list(verify(copy))


def test_a_set_of_other_weights_than_recorded_is_refused(copy: Path) -> None:
    path = copy / "encoders/linear/encoder.json"
    facts = json.loads(path.read_text())
    rewrite_fingerprint(copy, path, facts | {"fingerprint": facts["fingerprint"] | {"weights": "b" * 64}})
    with pytest.raises(UserError, match="another space than linear"):
        list(verify(copy))


def rewrite_fingerprint(release: Path, path: Path, facts: dict) -> None:
    path.write_text(json.dumps(facts))
    releases.relist(release, path.relative_to(release).as_posix())


def test_a_carried_chain_is_masked_only_where_its_columns_are_of_one_modality(made: Path, tmp_path: Path) -> None:
    source = featured.params(
        "minilm", "descriptors", sets={"both": {"kind": "concat", "of": ["minilm", "descriptors"]}}
    )
    layout = toy.outputs(tmp_path / "older")
    featured.stage(layout, source)
    older = releases.published(layout, source.with_sections(Publish(features=["both"]))).release

    encoders = {
        "both": {"kind": "released", "model": str(older), "encoder": "both"},
        "linear": {"kind": "released", "model": str(made / "publish/shop/release"), "encoder": "linear"},
    }
    now = toy.outputs(tmp_path / "now")
    featured.stage(now, featured.params("both", sets={"both-image-masked": {}}, **encoders))
    text = featured.vectors(layout, "minilm").shape[1]
    vectors = featured.vectors(now, "both-image-masked")
    np.testing.assert_array_equal(vectors[:, :text], featured.vectors(now, "both")[:, :text])
    assert not vectors[:, text:].any()
    with pytest.raises(UserError, match="no image can be removed from linear"):
        featured.stage(now, featured.params("linear", sets={"linear-image-masked": {}}, **encoders))
