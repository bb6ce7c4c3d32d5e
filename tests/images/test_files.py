"""Local images: next to the item file, in a folder or archive, by a pattern."""

import os
import shutil
import unicodedata
import zipfile
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import pictures
import pyarrow as pa
import pytest
from commands import alignrec
from PIL import Image
from typer.testing import Result

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io as tables
from alignrec.pipeline.images.access import open_files, prepend_candidates
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.item_images import find_image
from alignrec.pipeline.sources.inspect import _file_lookup

LIMIT = 100_000


png = partial(pictures.plain, form="PNG")


def test_a_very_large_image_is_averaged_before_it_is_resized() -> None:
    ramp = np.linspace(0, 255, 4200).astype(np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (4100, 1)), np.tile(ramp[:4100, None], (1, 4200)), np.full((4100, 4200), 90, np.uint8)], 2
    )
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    made = normalise_image(file.getvalue(), size=64, quality=95, max_pixels=1 << 25)
    assert made.status == "ok"
    small = np.asarray(Image.open(BytesIO(made.image)).convert("RGB"), float)
    plain = np.asarray(Image.fromarray(pixels).resize(small.shape[1::-1], Image.Resampling.BOX), float)
    assert np.abs(small - plain).mean() < 3


def endings(start: Path, *addresses: str, **params: object) -> list[str]:
    """Return "ok", or status and reason, for each address."""
    with closing(open_files(Images(**params), start)) as local:  # type: ignore[arg-type]
        results = [local.read(address, LIMIT) for address in addresses]
    return ["ok" if r.data == png() else f"{r.status}: {r.reason}" for r in results]


OUTSIDE = "blocked: outside the folder of the images; see images.outside"
NO_FILE = "unreachable: no such file"


# --- a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image, and a link to one outside."""
    inside = tmp_path / "mine"
    (inside / "images").mkdir(parents=True)
    for path in (inside / "images/a b&c.png", inside / "images/a%20b.png", tmp_path / "secret.png"):
        path.write_bytes(png())
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "large.png").write_bytes(png() + bytes(LIMIT))
    return inside


def test_paths_and_file_addresses_start_from_the_folder(folder: Path) -> None:
    named = [f"file://{folder}/images/a%20b&c.png", f"FILE://localhost{folder}/images/a%20b&c.png"]
    paths = ["images/a b&c.png", "./images//../images/a b&c.png", f"{folder}/images/a b&c.png", "images/a%20b.png"]
    assert endings(folder, *paths, *named) == ["ok"] * 6


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_the_other_normal_form_are_found(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    name = unicodedata.normalize(form, "Müller/é.png")
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", name)
    (tmp_path / "in" / name).parent.mkdir(parents=True)
    (tmp_path / "in" / name).write_bytes(png())
    zipped(tmp_path / "in.zip", {name: png()})
    for place in (tmp_path / "in", tmp_path / "in.zip"):
        assert endings(place, name, other, f"{other}x") == ["ok", "ok", NO_FILE]
        assert list(map(_file_lookup(place), [name, other, f"{other}x"])) == [True, True, False]
    assert find_image(other.removesuffix(".png"), tmp_path / "in").status == "ok"
    assert endings(tmp_path / "in", f"../{other}") == [OUTSIDE]


def test_what_leaves_the_folder_is_blocked_unless_a_parameter_allows_it(folder: Path) -> None:
    leave = ["../secret.png", f"file://{folder}/%2e%2e/secret.png", "link.png", str(folder.parent / "secret.png")]
    assert endings(folder, *leave) == [OUTSIDE] * 4
    assert endings(folder, *leave, outside=True) == ["ok"] * 4


def test_what_is_no_image_file_ends_with_a_reason(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert endings(folder, "none.png", "images", "", "pipe.png", "large.png", "file://elsewhere/images/a.png") == [
        *([NO_FILE] * 4),
        f"too_large: more than {LIMIT} bytes",
        "unreachable: not a readable file",
    ]
    assert [e.split(":")[0] for e in endings(folder, "x" * 300, "a\x00b")] == ["unreachable"] * 2


def test_files_of_an_item_file_elsewhere_are_refused() -> None:
    with closing(open_files(Images(), None)) as local:
        assert "set images.folder" in local.read("a.png", LIMIT).reason


# --- archives


def zipped(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def test_members_of_an_archive_are_read_in_any_order(tmp_path: Path) -> None:
    files, name = {f"images/{i}.png": png() + bytes(i) for i in range(50)}, "images.zip"
    zipped(tmp_path / name, files | {"./a b.png": png(), "../up.png": png(), "large.png": bytes(LIMIT + 1)})
    with closing(open_files(Images(), tmp_path / name)) as local:
        for i in [*range(49, -1, -7), *range(50)]:
            assert local.read(f"images/{i}.png", LIMIT).data == png() + bytes(i)
    found = endings(tmp_path / name, "a b.png", "./images/../a b.png", "images", "none.png", "link.pngx")
    assert found == ["ok"] * 2 + [NO_FILE] * 3
    inside = "blocked: not a path inside the archive of the images"
    assert endings(tmp_path / name, "../up.png", "/images/1.png", "file:///images/1.png", outside=True) == [inside] * 3
    assert endings(tmp_path / name, "large.png") == [f"too_large: more than {LIMIT} bytes"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]  # nothing is unpacked


def test_damaged_members_and_archives_say_so(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"a.png": png()})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    (tmp_path / "a.zip").write_bytes(data[:60] + bytes([data[60] ^ 255]) + data[61:])
    for flags in (6, data.index(b"PK\x01\x02") + 8):  # which say that there is a password
        data[flags] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    assert endings(tmp_path / "a.zip", "a.png")[0].startswith("unreachable: the archive: not readable")
    assert endings(tmp_path / "locked.zip", "a.png")[0].startswith("unreachable: the archive: not readable")
    for name, content in {
        "cut.zip": bytes(data[: len(data) // 2]),
        "text.tar": b"no archive",
        "empty.zip": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: not a zip archive; unpack it"):
            open_files(Images(), tmp_path / name)
    with pytest.raises(UserError, match=r"none: no such .*images\.folder"):
        open_files(Images(), tmp_path / "none")


# --- patterns


def test_a_pattern_comes_first_and_counts_only_where_its_file_exists() -> None:
    patterns = ["images/{item}.jpg", "images/{asin}.png", "https://e/{item}.jpg"]
    there = {"images/a/b.jpg", "images/{item}.png"}
    items = pa.table({"asin": ["a/b", "{item}"], "image_urls": [["own.jpg"], []]})
    assert prepend_candidates(items, patterns, there.__contains__)["image_urls"].to_pylist() == [
        ["images/a/b.jpg", "https://e/a%2Fb.jpg", "own.jpg"],
        ["images/{item}.png", "https://e/%7Bitem%7D.jpg"],
    ]


@pytest.mark.parametrize("pattern", ["images/1.jpg", "{other}.jpg", "{item.x}", "{item", "{}", "{item!r}"])
def test_a_pattern_without_the_item_is_refused(tmp_path: Path, pattern: str) -> None:
    text = {"datasets": ["mine"], "sources": {"mine": {"kind": "sample"}}, "images": {"pattern": pattern}}
    (tmp_path / "p.yaml").write_bytes(orjson.dumps(text))
    with pytest.raises(UserError, match=r"'images\.pattern\.0'"):
        load(tmp_path / "p.yaml")


# --- from an empty folder to images, as a user does it


class Shop:
    """A project: six items, a CSV of interactions, JSON lines of items, and images."""

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, "{}"
        (root / "data/images").mkdir(parents=True)
        rows = [f"u{u},i{i},{1_600_000_000 + 10 * u + i}" for u in range(6) for i in range(6)]
        (root / "data/bought.csv").write_text("\n".join(["user,item,timestamp", *rows]))
        for i in range(4):
            (root / f"data/images/{i}.png").write_bytes(png(f"#00000{i}"))
        self.describe(*(f"images/{i}.png" for i in range(6)))

    def describe(self, *urls: str | None) -> None:
        """Write the item file, with an address per item."""
        named = [{"image_urls": url} if url else {} for url in urls]
        rows = [{"item": f"i{i}", "title": f"t{i}"} | url for i, url in enumerate(named)]
        (self.root / "data/items.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))

    def command(self, stage: str, *options: str) -> Result:
        """Run a stage's command in the project."""
        source = "{kind: tabular, interactions: data/bought.csv, items: data/items.jsonl}"
        text = f"datasets: [mine]\nsources: {{mine: {source}}}\nimages: {self.images}\nbenchmark: {{ks: [1, 2]}}\n"
        (self.root / "params.yaml").write_text(text)
        return alignrec(stage, "mine", *options)

    def run(self, *stages: str) -> str:
        """Run stages; return the output of the last one."""
        for stage in stages:
            done = self.command(*stage.split())
            assert done.exit_code == 0, done.output
        return done.stdout

    def paths(self) -> list[Path]:
        return tables.shards(self.root / "outputs/images/mine", "images")

    def statuses(self) -> list[str]:
        table = pa.concat_tables(tables.read_table(p, schemas.IMAGES) for p in self.paths()).sort_by("asin")
        return table["status"].to_pylist()  # type: ignore[no-any-return]

    def shards(self) -> dict[str, str]:
        return {path.name: tables.sha256(path) for path in self.paths()}


ALL = ("download", "interactions", "items", "images")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


def test_images_beside_the_item_file_are_read_and_added_and_edited_ones_again(shop: Shop) -> None:
    shop.run(*ALL)
    assert shop.statuses() == ["ok"] * 4 + ["unreachable"] * 2
    before = shop.shards()
    shop.run("images")
    assert shop.shards() == before

    (shop.root / "data/images/4.png").write_bytes(png("blue"))  # added
    shop.run("images")
    assert shop.statuses() == ["ok"] * 5 + ["unreachable"]

    before = shop.shards()
    (shop.root / "data/images/0.png").write_bytes(png("green"))  # edited
    shop.run("images")
    assert shop.shards() != before
    (shop.root / "data/images/1.png").unlink()  # removed
    shop.run("images")
    assert shop.statuses() == ["ok", "unreachable", "ok", "ok", "ok", "unreachable"]

    settled = shop.shards()
    shutil.rmtree(shop.root / "outputs")
    shop.run(*ALL)
    assert shop.shards() == settled  # byte for byte what a first run gives


def test_a_pattern_finds_images_that_no_item_names(shop: Shop) -> None:
    shop.describe(*[None] * 6)
    shop.images = "{pattern: 'images/{item}.png'}"
    (shop.root / "data/images/0.png").rename(shop.root / "data/images/i0.png")
    shop.run(*ALL)
    assert shop.statuses() == ["ok"] + ["missing"] * 5
    (shop.root / "data/images/1.png").rename(shop.root / "data/images/i1.png")
    shop.run("images")
    assert shop.statuses() == ["ok"] * 2 + ["missing"] * 4


def test_an_archive_is_read_in_place_and_again_when_it_changes(shop: Shop) -> None:
    name = "images.zip"
    images = {f"images/{i}.png": png(f"#00000{i}") for i in range(4)}
    shop.run(*ALL)
    from_folder = shop.shards()
    shutil.rmtree(shop.root / "data/images")
    shop.images = f"{{folder: data/{name}}}"
    zipped(shop.root / f"data/{name}", images)
    shop.run("images")
    assert shop.shards() == from_folder
    zipped(shop.root / f"data/{name}", images | {"images/5.png": png()})
    shop.run("images")
    assert shop.statuses() == ["ok"] * 4 + ["unreachable", "ok"]


def test_shards_of_items_that_are_gone_are_deleted(shop: Shop) -> None:
    shop.images = "{shard_rows: 1}"
    shop.run(*ALL)
    assert len(shop.shards()) == 6
    rows = [f"u{u},i{i},{1_600_000_000 + 10 * u + i}" for u in range(5) for i in range(5)]
    (shop.root / "data/bought.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    shop.run(*ALL)
    assert len(shop.shards()) == 5
