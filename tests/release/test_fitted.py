"""`fitted` and `codebooks`: a catalogue that grows stays in the space of an older release."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from shop import featured, releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.embed import load_stored
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.loading import Loaded, Project
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from tests.release.test_align import TODAY, TOMORROW

WIDTH = 8


def settings(older: Path | None = None, align: Path | None = None, **linear: Any) -> Parameters:
    """Return parameters of a fresh project, or of one in the space of an older release."""
    encoders = {}
    if older is not None:
        linear["fitted"] = str(older)
        encoders["tfidf"] = {"kind": "released", "model": str(older), "encoder": "tfidf"}
    return toy.params(
        encode={"encoders": ["tfidf"], "shard_rows": 50},
        encoders=encoders,
        combine={"sets": {"linear": {"width": WIDTH, **linear}}, "controls": []},
        beit3={"sets": []},
        publish={"features": ["linear", "tfidf"], "align": str(align) if align else None},
    )


def with_codes(given: Parameters, older: Path | None = None, **sizes: int) -> Parameters:
    own: dict[str, Any] = {"features": ["linear"], **(sizes or {"levels": 2, "codes": 8})}
    if older is not None:
        own = {"features": ["linear"], "codebooks": str(older), **sizes}
    sections = {name: getattr(given, name) for name in ("encode", "combine", "beit3", "publish")}
    return toy.params(**sections, encoders=given.encoders, semantic_ids=own)


def make(root: Path, items: Sequence[featured.Item], given: Parameters) -> Layout:
    layout = featured.catalogue(root, list(items))
    io.write_table(toy.filled(schemas.USERS, user_id=[0], user=["u"]), layout.users, schemas.USERS)
    io.write_table(schemas.INTERACTIONS.empty_table(), layout.interactions, schemas.INTERACTIONS)
    featured.stage(layout, given)
    if given.section("semantic_ids").features:
        for stage in ("graph", "semantic_ids"):
            toy.run(stage, given, root)
    return layout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = make(tmp_path_factory.mktemp("today"), TODAY, with_codes(settings()))
    return releases.published(layout, settings()).release


@pytest.fixture(scope="module")
def aligned(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = make(tmp_path_factory.mktemp("tomorrow"), TOMORROW, with_codes(settings()))
    return releases.published(layout, settings(align=older)).release


def vectors(folder: Path) -> dict[str, np.ndarray]:
    table = io.read_features(folder)
    return dict(zip(table["asin"].to_pylist(), io.matrix(table["vector"]), strict=True))


def largest_difference(folder: Path, older: Path, changed: Sequence[str] = ()) -> float:
    new, old = vectors(folder), vectors(older)
    kept = [asin for asin in old if asin in new and asin not in changed]
    assert len(kept) > 100
    return max(float(np.abs(new[asin] - old[asin]).max()) for asin in kept)


def test_equal_items_keep_their_vectors(older: Path, tmp_path: Path) -> None:
    given = settings(older)
    layout = make(tmp_path, TOMORROW, given)
    for name in ("tfidf", "linear"):
        assert largest_difference(layout.features(name), older / "features" / name, ["A3"]) < 1e-6
        fingerprint = FeatureSet.of(layout, name).facts.fingerprint
        assert fingerprint == io.record(next(older.glob(f"features/{name}/*.parquet")))[io.FINGERPRINT]
    new = np.array([vectors(layout.features("linear"))[one.asin] for one in TOMORROW[-12:]])
    assert new.any(axis=1).all()

    # the next release encodes new items as the older one does, and can be grown from, too
    release = releases.published(layout, given).release
    verify(release)
    loaded = ReleasedEncoders(release).load_all(["linear", "tfidf"])
    for name, encoder in loaded.items():
        encoded = encode_items(encoder, [one.text for one in TODAY], [None] * len(TODAY))
        before = vectors(older / "features" / name)
        np.testing.assert_allclose(encoded, [before[one.asin] for one in TODAY], atol=1e-5)
    next_layout = make(tmp_path / "next", TODAY, settings(release))
    assert largest_difference(next_layout.features("linear"), older / "features/linear") < 1e-6


def test_maps_of_a_rotated_release_are_used_with_its_rotations(aligned: Path, tmp_path: Path) -> None:
    layout = make(tmp_path, [*TOMORROW, TODAY[4]], settings(aligned))
    assert largest_difference(layout.features("linear"), aligned / "features/linear", ["A3"]) < 1e-5
    facts = FeatureSet.of(layout, "linear").facts
    assert "rotation" in facts.fingerprint


@pytest.fixture(scope="module")
def third(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Return the outputs of a project in the spaces of an aligned release, published."""
    layout = make(tmp_path_factory.mktemp("third"), [*TOMORROW, TODAY[4]], settings(aligned))
    return releases.published(layout, settings(aligned))


def test_a_project_in_an_aligned_space_releases_encoders_of_that_space(aligned: Path, third: Layout) -> None:
    verify(third.release)
    texts = [one.text for one in TOMORROW]
    for name, encoder in ReleasedEncoders(third.release).load_all(["linear", "tfidf"]).items():
        encoded = encode_items(encoder, texts, [None] * len(texts))
        there = vectors(aligned / "features" / name)
        np.testing.assert_allclose(encoded, [there[one.asin] for one in TOMORROW], atol=1e-5)
        path = f"encoders/{name}/rotation.safetensors"
        assert (third.release / path).read_bytes() == (aligned / path).read_bytes()


@pytest.mark.parametrize("name", ["linear", "tfidf"])
def test_the_project_itself_embeds_into_the_aligned_space(aligned: Path, third: Layout, name: str) -> None:
    texts = [one.text for one in TOMORROW]
    project = Project(third)
    loaded = Loaded(project.facts(name), load_stored(project, name))
    encoded = encode_items(loaded, texts, [None] * len(texts))
    there = vectors(aligned / "features" / name)
    np.testing.assert_allclose(encoded, [there[one.asin] for one in TOMORROW], atol=1e-5)


def test_a_set_that_is_rotated_again_has_one_rotation(older: Path, aligned: Path, third: Layout) -> None:
    release = shutil.copytree(third.release, third.root / "kept")
    releases.published(third, settings(aligned, align=older))
    again = third.release
    verify(again)
    texts = [one.text for one in TODAY]
    for name, encoder in ReleasedEncoders(again).load_all(["linear", "tfidf"]).items():
        encoded = encode_items(encoder, texts, [None] * len(texts))
        here = vectors(again / "features" / name)
        kept = [number for number, one in enumerate(TODAY) if one.asin in here and one.asin != "A3"]
        np.testing.assert_allclose(encoded[kept], [here[TODAY[n].asin] for n in kept], atol=1e-5)
    shutil.rmtree(again)
    shutil.move(release, again)


def test_one_set_of_an_aligned_release_is_fetched_with_all_that_it_needs(aligned: Path, tmp_path: Path) -> None:
    fetch(str(aligned), tmp_path / "part", "linear")
    verify(tmp_path / "part")
    ReleasedEncoders(tmp_path / "part").load("linear")


def test_a_release_names_older_ones_without_their_folders(older: Path, tmp_path: Path) -> None:
    releases_made = []
    for name in ("here", "a/longer/way"):
        base = shutil.copytree(older, tmp_path / name / f"older-{len(name)}")
        given = with_codes(settings(base, align=base), base)
        layout = make(tmp_path / name / "outputs", TOMORROW, given)
        releases_made.append(toy.contents(releases.published(layout, given).release))
    assert releases_made[0] == releases_made[1]

    manifest = json.loads(releases_made[0]["manifest.json"])
    digest = io.sha256(older / "manifest.json")
    title = f"shop 0.1.0, sha256:{digest}"
    params = {stage: maker["params"] for stage, maker in manifest["made_by"].items()}
    assert params["combine"]["settings"]["fitted"] == title
    assert params["semantic_ids"]["codebooks"] == title
    assert params["publish"]["align"] == title


def test_a_moved_release_changes_nothing_and_another_one_does(older: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(older, tmp_path / "moved")
    layout = make(tmp_path / "outputs", TOMORROW, settings(older))
    made = {path: path.stat().st_mtime_ns for path in layout.features("linear").rglob("*.parquet")}
    toy.run("combine", settings(moved), layout.root)
    assert made == {path: path.stat().st_mtime_ns for path in made}

    releases.edit(moved, lambda content: content.update(version="0.1.1"))
    toy.run("combine", settings(moved), layout.root)
    assert made != {path: path.stat().st_mtime_ns for path in made}


def test_a_part_that_was_fitted_again_is_refused(older: Path, tmp_path: Path) -> None:
    given = settings(fitted=str(older))
    remedy = r"declare it under encoders, tfidf: {kind: released, model: .*, encoder: tfidf}"
    with pytest.raises(UserError, match=rf"'combine.sets.linear.fitted': .*tfidf is in another space .*{remedy}"):
        make(tmp_path, TOMORROW, given)


@pytest.mark.parametrize(
    ("linear", "fault"),
    [
        ({"width": 5}, "fitted to a width of 8 there; leave `width` out"),
        ({"of": ["tfidf", "other"]}, "linear is made of tfidf there, and of tfidf, other here"),
        ({"fitted": "nowhere"}, "is this a release folder"),
    ],
)
def test_other_parts_widths_and_folders_are_refused(
    older: Path, tmp_path: Path, linear: dict[str, Any], fault: str
) -> None:
    given = settings(older)
    encode, combine = dict(given.section("encode")), dict(given.section("combine"))
    encoders = given.encoders | {"other": given.encoders["tfidf"]}
    sets = combine["sets"] | {"linear": combine["sets"]["linear"] | linear}
    own = {"encode": encode | {"encoders": ["tfidf", "other"]}, "combine": combine | {"sets": sets}}
    if "of" not in linear:
        sets["linear"]["of"] = ["tfidf"]
    with pytest.raises(UserError, match=fault):
        make(tmp_path, TODAY, toy.params(**own, encoders=encoders, beit3={"sets": []}))


def test_a_damaged_release_and_one_without_the_set_are_refused(older: Path, tmp_path: Path) -> None:
    damaged, without = (shutil.copytree(older, tmp_path / name) for name in ("damaged", "without"))
    path = damaged / "encoders/linear/maps.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="release is damaged"):
        make(tmp_path / "a", TODAY, settings(damaged))
    releases.drop(without, "encoders/linear")
    with pytest.raises(UserError, match="no encoder 'linear' in this release; it has tfidf"):
        make(tmp_path / "b", TODAY, settings(without))


def codes(path: Path) -> dict[str, tuple[Any, ...]]:
    return {row["asin"]: (row["codes"], row["suffix"]) for row in io.read_codes(path).to_pylist()}


@pytest.mark.parametrize("release", ["older", "aligned"])
def test_equal_items_keep_their_codes(release: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base = request.getfixturevalue(release)
    # a copy of each of the first items collides with it, and comes first
    copies = [featured.Item(f"C{number}", one.text, None) for number, one in enumerate(TODAY[:9])]
    given = with_codes(settings(base), base)
    layout = make(tmp_path, [*copies, *TOMORROW], given)
    now, before = codes(layout.codes("linear")), codes(base / "semantic_ids/linear/codes.parquet")
    kept = [asin for asin in before if asin in now and asin != "A3"]
    assert {asin: now[asin] for asin in kept} == {asin: before[asin] for asin in kept}
    assert now["C0"][0] == now["A0"][0]
    assert now["C0"][1] > now["A0"][1]
    published = releases.published(layout, given).release
    verify(published)
    path = "semantic_ids/linear/codebooks.safetensors"
    assert (published / path).read_bytes() == (base / path).read_bytes()


def test_codebooks_of_another_space_or_size_are_refused(older: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'semantic_ids.codebooks': .*linear is in another space there.*publish.align"):
        make(tmp_path / "a", TOMORROW, with_codes(settings(), older))
    with pytest.raises(UserError, match=r"'semantic_ids.levels': 3, and the codebooks of the release have 2"):
        make(tmp_path / "b", TODAY, with_codes(settings(older), older, levels=3))


def test_releases_without_codebooks_and_hostile_ones_are_refused(older: Path, tmp_path: Path) -> None:
    without, hostile = (shutil.copytree(older, tmp_path / name) for name in ("without", "hostile"))
    path = "semantic_ids/linear/codebooks.safetensors"
    releases.drop(without, path)
    with pytest.raises(UserError, match="no codebooks of linear, which earlier versions did not publish"):
        make(tmp_path / "a", TODAY, with_codes(settings(older), without))
    for x, fault in (
        (np.zeros((2, 8, 5), np.float32), r"expected float32 \[2, any, 8\]"),
        (np.full((2, 8, 8), np.nan, np.float32), "not finite"),
        (np.zeros((2, 6, 8), np.float32), "no power of two"),
    ):
        save_file({"centroids": x}, hostile / path)
        releases.relist(hostile, path)
        with pytest.raises(UserError, match=fault):
            verify(hostile)


def test_a_released_encoder_is_kept_only_as_its_manifest_lists_it(older: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(older, tmp_path / "damaged")
    path = damaged / "encoders/tfidf/words.json"
    target = path.rename(tmp_path / "words.json")
    path.symlink_to(target)
    with pytest.raises(UserError, match=r"words.json: not as its manifest lists it"):
        make(tmp_path / "a", TODAY, settings(damaged))
