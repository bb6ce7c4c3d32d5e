"""A release instead of a dataset: read, compared, probed and exported from any directory."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import alignrec
from shop import releases, toy

from alignrec import schemas
from alignrec.commands.params import Params, of_release
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.pipeline.runtime.layout import Layout

PARAMS = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"


@pytest.fixture(scope="module")
def alone(made: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release without the project."""
    return shutil.copytree(made.release, tmp_path_factory.mktemp("alone") / "release")


@pytest.fixture
def copy(alone: Path, tmp_path: Path) -> Path:
    return shutil.copytree(alone, tmp_path / "copy")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def command(*args: object) -> tuple[int, str]:
    result = alignrec(*args)
    return result.exit_code, result.output


def test_its_tables_are_read_by_name(alone: Path, made: Layout) -> None:
    release = Release(alone).verify()
    assert release.feature_sets == releases.ENCODERS
    assert len(release.items) == toy.ITEMS
    assert release.features("beit3").equals(io.read_features(made.features("beit3")))
    assert release.edges("beit3").equals(io.read_table(made.edges("beit3"), schemas.EDGES))
    assert release.interactions.equals(io.read_table(made.interactions, schemas.INTERACTIONS))
    assert release.users["user"].to_pylist() == [f"U{u}" for u in range(toy.USERS)]
    assert io.matrix(release.embeddings("users")["vector"]).shape == (toy.USERS, 3)
    for read, name in ((release.features, "biet3"), (release.edges, "beit3-text-masked")):
        with pytest.raises(UserError, match=rf"'{name}'; .*beit3"):
            read(name)


def test_it_replaces_the_datasets_outputs(alone: Path, made: Layout) -> None:
    with unpack_release(Release(alone)) as layout:
        assert (layout.dataset, layout.feature_sets()) == ("shop", releases.ENCODERS)
        ours, theirs = (io.read_table(where.items, schemas.ITEMS) for where in (layout, made))
        for column in ("asin", "title", "categories", "text", "tokens"):
            assert ours[column].equals(theirs[column]), column
    assert not layout.root.exists()


def test_compare_is_the_datasets(alone: Path, made: Layout, elsewhere: Path) -> None:
    np.save(elsewhere / "theirs.npy", np.random.default_rng(0).normal(size=(toy.ITEMS, 3)))
    code, output = command("compare", alone, "beit3", "theirs.npy", "--to", "out")
    assert code == 0, output
    assert "OpenMoji" in (elsewhere / "out/index.html").read_text()  # the kind of the source is the release's
    (elsewhere / "params.yaml").write_text(PARAMS)
    toy.ended(made)
    assert command("compare", "shop", "beit3", "theirs.npy", "--root", made.root, "--to", "theirs")[0] == 0
    ours, theirs = (json.loads((elsewhere / folder / "compare.json").read_text()) for folder in ("out", "theirs"))
    assert ours == theirs


def test_parameters_are_those_that_the_release_records(alone: Path) -> None:
    settings = of_release(Release(alone), Path("params.yaml"))
    assert isinstance(settings, Params)
    assert settings.source("shop").kind == "sample"


def test_what_is_absent_is_named_in_one_line(copy: Path, elsewhere: Path) -> None:
    releases.drop(copy, "interactions.parquet", "users.parquet")
    code, output = command("compare", copy, "beit3")
    assert code == 1
    assert output.startswith(f"error: {copy}: this release has no interactions, ")
    assert len(output.splitlines()) == 1
    code, output = command("compare", "../gone", "beit3")
    assert (code, output) == (1, "error: ../gone: no release folder: there is no manifest.json in it\n")
    assert not list(elsewhere.iterdir())
