"""Three days of a shop: a release, the next day's in the same space, and a project grown from that one.

A day's work as a shop does it, by the commands: what it keeps, what it encodes, and what a kill or a damaged older
release leaves.
"""

import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec, error_line, run_stages
from processes import kill_after, started
from shop import featured, toy

from alignrec import schemas
from alignrec.commands import new as command
from alignrec.commands.own_data import Given
from alignrec.pipeline import io
from alignrec.pipeline.linalg.rotation import paired_cosines
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.runtime.layout import Layout
from tests.release.test_align import TODAY, TOMORROW, item
from tests.test_growing import write_shop

TO_FEATURES = ("download", "interactions", "items", "images", "encode", "beit3", "combine")
TO_RELEASE = ("graph", "semantic_ids", "train", "publish")
OUTPUTS = Layout(Path("outputs"), "shop")
MONDAY, TUESDAY, PLAIN, WEDNESDAY = map(Path, ("monday", "tuesday", "plain", "wednesday"))
CHANGED = "A3"
NEWEST = [item(f"C{number}", 2000 + number) for number in range(6)]
SETS = ("minilm", "tfidf", "linear")
FITTED = ("tfidf", "linear")


def write_params(given: Given, older: Path | None = None, **sections: dict[str, Any]) -> None:
    """Write params.yaml as `alignrec new` does, with `sections` of the user."""
    text, _ = command.describe_files(given, older=older)
    params = yaml.safe_load(text)
    for name, own in {"train": {"epochs": 2}, **sections}.items():
        params[name] = params.get(name, {}) | own
    Path("params.yaml").write_text(yaml.safe_dump(params))


def write_day(items: Sequence[featured.Item], version: str, **sections: dict[str, Any]) -> None:
    codes = {"features": ["linear"], "levels": 2, "codes": 8}
    sections["publish"] = {"version": version, **sections.get("publish", {})}
    narrow = {"sets": {"linear": {"width": 32}}}  # fewer columns than items, to align
    write_params(write_shop(items), semantic_ids=codes, combine=narrow, **sections)


def release_to(folder: Path) -> None:
    shutil.copytree(OUTPUTS.release, folder)


def publish_until_killed() -> None:
    kill_after(Path, "replace", 4)
    processes.command("publish", "shop")


def count_cached_rows() -> int:
    return sum(pq.read_metadata(path).num_rows for path in OUTPUTS.rows.rglob("*.parquet"))


@pytest.fixture(scope="module")
def cached() -> dict[str, int]:
    """Return the number of cached rows after each day."""
    return {}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, cached: dict[str, int]) -> Iterator[Path]:
    """Live through the three days; the releases are in folders named after them."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(command, "has_gpu", lambda: False)

        write_day(TODAY, "0.1.0")
        run_stages("shop", *TO_FEATURES, *TO_RELEASE)
        release_to(MONDAY)
        cached["monday"] = count_cached_rows()

        write_day(TOMORROW, "0.2.0")
        run_stages("shop", *TO_FEATURES, *TO_RELEASE)
        release_to(PLAIN)
        cached["tuesday"] = count_cached_rows()

        write_day(TOMORROW, "0.2.0", publish={"align": "monday"})
        assert started(publish_until_killed, cwd=folder).wait() == -signal.SIGKILL
        assert [*OUTPUTS.work("publish").rglob("features/*/*")]
        assert toy.contents(OUTPUTS.release) == toy.contents(PLAIN)
        run_stages("shop", "publish")
        release_to(TUESDAY)

        WEDNESDAY.mkdir()
        patch.chdir(WEDNESDAY)
        write_params(write_shop([*NEWEST, *TOMORROW]), Path("../tuesday"), publish={"version": "0.3.0"})
        run_stages("shop", *TO_FEATURES, *TO_RELEASE)
        release_to(folder / "grown")
        patch.chdir(folder)
        yield folder


def vectors(release: Path, name: str) -> dict[str, np.ndarray]:
    table = Release(release).features(name)
    return dict(zip(table["asin"].to_pylist(), io.matrix(table["vector"]), strict=True))


def largest_difference(release: Path, older: Path, name: str) -> float:
    now, before = (vectors(folder, name) for folder in (release, older))
    kept = [asin for asin in before if asin in now and asin != CHANGED]
    assert len(kept) >= len(TODAY) - 2
    return max(float(np.abs(now[asin] - before[asin]).max()) for asin in kept)


def median_cosine(release: Path, older: Path, name: str) -> float:
    now, before = (vectors(folder, name) for folder in (release, older))
    kept = [asin for asin in before if asin in now and asin != CHANGED]
    pairs = [np.array([of[asin] for asin in kept]) for of in (now, before)]
    return float(np.median(paired_cosines(*pairs)))


def codes(release: Path) -> dict[str, Any]:
    rows = io.read_codes(release / "semantic_ids/linear/codes.parquet").to_pylist()
    return {row["asin"]: (row["codes"], row["suffix"]) for row in rows}


def test_only_new_and_changed_texts_are_encoded(shop: Path, cached: dict[str, int]) -> None:
    assert cached["tuesday"] - cached["monday"] == len(TOMORROW) - len(TODAY) + 2
    assert largest_difference(shop / TUESDAY, shop / MONDAY, "minilm") < 1e-6


@pytest.mark.parametrize("name", FITTED)
def test_the_second_release_is_in_the_space_of_the_first(shop: Path, name: str) -> None:
    before, after = (median_cosine(shop / release, shop / MONDAY, name) for release in (PLAIN, TUESDAY))
    assert after > max(before, 0.95)
    alignment = Release(shop / TUESDAY).manifest.alignment
    assert alignment is not None
    assert CHANGED in {one.asin for one in alignment.sets[name].changed}


def test_diff_says_which_sets_are_of_another_space(shop: Path) -> None:
    found = alignrec("diff", shop / MONDAY, shop / PLAIN, "--fail-on", "minor")
    assert found.exit_code == 1
    assert found.output.startswith("12 new, 1 gone, 1 changed; index all again: another space of linear, tfidf\n")


@pytest.mark.parametrize("name", SETS)
def test_the_third_day_keeps_all_vectors(shop: Path, name: str) -> None:
    assert largest_difference(shop / "grown", shop / TUESDAY, name) < 1e-5
    assert len(vectors(shop / "grown", name)) == len(TOMORROW) + len(NEWEST)


def test_the_third_day_keeps_all_codes(shop: Path) -> None:
    now, before = codes(shop / "grown"), codes(shop / TUESDAY)
    assert {asin: now[asin] for asin in before} == before


@pytest.mark.parametrize("name", FITTED)
def test_the_third_release_still_encodes_into_the_space(shop: Path, name: str) -> None:
    verify(shop / "grown")
    encoder = ReleasedEncoders(shop / "grown").load(name)
    items = io.read_table(shop / OUTPUTS.items, schemas.ITEMS, ["asin", "text"])
    encoded = encode_items(encoder, items["text"].to_pylist(), [None] * len(items))
    there = vectors(shop / TUESDAY, name)
    np.testing.assert_allclose(encoded, [there[asin] for asin in items["asin"].to_pylist()], atol=1e-5)


def test_a_damaged_older_release_is_refused_in_one_line(shop: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(shop / MONDAY, tmp_path / "damaged")
    path = damaged / "items.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "release is damaged" in error_line(alignrec("diff", damaged, shop / TUESDAY, cwd=shop))
