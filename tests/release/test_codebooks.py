"""`semantic_ids.codebooks`: items of a release keep their codes; and released encoders, which keep the space."""

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
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters

WORDS = ["red", "green", "blue", "grey", "oak", "steel", "glass", "wool", "lamp", "chair", "table", "sofa"]
TODAY = [featured.Item(f"A{n}", " ".join(np.random.default_rng(n).choice(WORDS, 5)), None) for n in range(120)]
# a copy of each of the first items collides with it, and comes first
COPIES = [featured.Item(f"C{number}", one.text, None) for number, one in enumerate(TODAY[:9])]
# one item left
TOMORROW = [*COPIES, *TODAY[:4], *TODAY[5:]]


def settings(encoders: Path | None = None, codebooks: Path | None = None, **sizes: int) -> Parameters:
    """Return parameters of a fresh project, or with encoders and codebooks of a release."""
    networks, declared, sets = ["tfidf"], {}, {"linear": {"width": 8}}
    if encoders is not None:
        networks, sets = ["tfidf", "linear"], {}
        declared = {name: {"kind": "released", "model": str(encoders), "encoder": name} for name in networks}
    codes: dict[str, Any] = {"levels": 2, "codes": 8} if codebooks is None else {"codebooks": str(codebooks)}
    return toy.params(
        encode={"encoders": networks, "shard_rows": 50},
        encoders=declared,
        combine={"sets": sets, "controls": []},
        beit3={"sets": []},
        semantic_ids={"features": ["linear"], **codes, **sizes},
        publish={"features": ["linear", "tfidf"]},
    )


def make(root: Path, items: Sequence[featured.Item], given: Parameters) -> Layout:
    layout = featured.catalogue(root, list(items))
    io.write_table(toy.filled(schemas.USERS, user_id=[0], user=["u"]), layout.users, schemas.USERS)
    io.write_table(schemas.INTERACTIONS.empty_table(), layout.interactions, schemas.INTERACTIONS)
    featured.stage(layout, given)
    for stage in ("graph", "semantic_ids"):
        toy.run(stage, given, root)
    return layout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = make(tmp_path_factory.mktemp("today"), TODAY, settings())
    return releases.published(layout, settings()).release


def codes(path: Path) -> dict[str, tuple[Any, ...]]:
    return {row["asin"]: (row["codes"], row["suffix"]) for row in io.read_codes(path).to_pylist()}


def test_equal_items_keep_their_codes(older: Path, tmp_path: Path) -> None:
    given = settings(older, older)
    layout = make(tmp_path, TOMORROW, given)
    now, before = codes(layout.codes("linear")), codes(older / "semantic_ids/linear/codes.parquet")
    kept = [asin for asin in before if asin in now]
    assert {asin: now[asin] for asin in kept} == {asin: before[asin] for asin in kept}
    assert now["C0"][0] == now["A0"][0]
    assert now["C0"][1] > now["A0"][1]
    published = releases.published(layout, given).release
    verify(published)
    path = "semantic_ids/linear/codebooks.safetensors"
    assert (published / path).read_bytes() == (older / path).read_bytes()


def test_codebooks_of_another_space_or_size_are_refused(older: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'semantic_ids.codebooks': .*linear is in another space there.*kind released"):
        make(tmp_path / "a", TOMORROW, settings(codebooks=older))
    with pytest.raises(UserError, match=r"'semantic_ids.levels': 3, and the codebooks of the release have 2"):
        make(tmp_path / "b", TODAY, settings(older, older, levels=3))


def test_releases_without_codebooks_and_hostile_ones_are_refused(older: Path, tmp_path: Path) -> None:
    without, hostile = (shutil.copytree(older, tmp_path / name) for name in ("without", "hostile"))
    path = "semantic_ids/linear/codebooks.safetensors"
    releases.drop(without, path)
    with pytest.raises(UserError, match="no codebooks of linear; publish it again"):
        make(tmp_path / "a", TODAY, settings(older, without))
    for x, fault in (
        (np.zeros((2, 8, 5), np.float32), r"expected float32 \[2, any, 8\]"),
        (np.full((2, 8, 8), np.nan, np.float32), "not finite"),
        (np.zeros((2, 6, 8), np.float32), "no power of two"),
    ):
        save_file({"centroids": x}, hostile / path)
        releases.relist(hostile, path)
        with pytest.raises(UserError, match=fault):
            verify(hostile)


def test_a_release_names_older_ones_without_their_folders(older: Path, tmp_path: Path) -> None:
    releases_made = []
    for name in ("here", "a/longer/way"):
        base = shutil.copytree(older, tmp_path / name / f"older-{len(name)}")
        given = settings(base, base)
        layout = make(tmp_path / name / "outputs", TOMORROW, given)
        releases_made.append(toy.contents(releases.published(layout, given).release))
    assert releases_made[0] == releases_made[1]

    manifest = json.loads(releases_made[0]["manifest.json"])
    named = manifest["made_by"]["semantic_ids"]["params"]["codebooks"]
    assert named == f"shop 0.1.0, sha256:{io.sha256(older / 'manifest.json')}"


@pytest.mark.parametrize("name", ["tfidf/words.json", "linear/maps.safetensors"])
def test_a_released_encoder_is_kept_only_as_its_manifest_lists_it(older: Path, tmp_path: Path, name: str) -> None:
    damaged = shutil.copytree(older, tmp_path / "damaged")
    path = damaged / "encoders" / name
    target = path.rename(tmp_path / path.name)
    path.symlink_to(target)
    with pytest.raises(UserError, match=rf"{path.name}: not as its manifest lists it"):
        make(tmp_path / "a", TODAY, settings(damaged))
