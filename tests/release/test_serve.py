"""`alignrec serve`: queries are answered by the release's encoder or refused."""

import re
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import commands
import httpx
import numpy as np
import pictures
import pyarrow as pa
import pytest
from processes import alignrec
from shop import releases, toy

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import serve as serving
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.release.serve import MAX_CHARACTERS, MAX_IMAGE_BYTES, Nearest, Refused
from alignrec.pipeline.runtime.layout import Layout

ANSWERED = toy.ITEMS - 1  # one has neither text nor image, and so no direction
OURS = {"x-alignrec": "1"}


@pytest.fixture(scope="module")
def address(encoding: Path) -> Iterator[str]:
    """The address of a server in its own process."""
    with alignrec("serve", encoding, "--port", "0", "--images", encoding.parents[2] / "images/shop") as server:
        line = server.stdout.readline()
        assert line.startswith("serving: http://127.0.0.1:"), line
        yield line.split()[1]


picture = partial(pictures.plain, form="PNG")


def test_the_answer_is_that_of_a_plain_search_with_the_released_encoder(encoding: Path) -> None:
    found = Nearest(Release(encoding)).search("beit3", "red ball", b"")
    x = io.matrix(Release(encoding).features("beit3")["vector"])
    query = encode_items(ReleasedEncoders(encoding).load("beit3"), ["red ball"], [None])[0]
    cosines = x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query) + 1e-30)
    assert [row["item"] for row in found] == np.argsort(-cosines, kind="stable").tolist()[: len(found)]
    assert found[0]["cosine"] == pytest.approx(cosines.max(), abs=1e-3)
    assert found[0]["title"] == (toy.TITLES[found[0]["item"]] or f"A{found[0]['item']}")


def test_an_items_own_text_and_image_find_it_first(encoding: Path) -> None:
    found = Nearest(Release(encoding)).search("beit3", toy.TITLES[5], toy.jpeg(toy.COLOURS[5] or (0, 0, 0)))
    assert found[0]["item"] == 5


UNANSWERED = [
    ("absent", "red", b"", "no encoder"),
    ("beit3", "  ", b"", "give one of these"),
    ("beit3", "x" * (MAX_CHARACTERS + 1), b"", "too much"),
    ("beit3", "red", b"\0" * (MAX_IMAGE_BYTES + 1), "too much"),
    ("beit3", "", b"no image", "image cannot be used"),
    ("beit3", "", picture()[:60], "image cannot be used"),
    ("beit3", "", picture(size=(200, 200)), "image cannot be used"),
    ("beit3-image-masked", "", picture(), "reads text"),
]


@pytest.mark.parametrize(("name", "text", "image", "why"), UNANSWERED)
def test_what_cannot_be_answered_is_refused_with_its_reason(
    encoding: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, image: bytes, why: str
) -> None:
    monkeypatch.setattr(serving, "MAX_PIXELS", 10_000)
    with pytest.raises(Refused, match=why):
        Nearest(Release(encoding)).search(name, text, image)


def test_it_answers_over_http_and_refuses_strangers(address: str) -> None:
    asked = f"{address}nearest"
    answer = httpx.post(asked, params={"encoder": "beit3", "text": "green tree"}, headers=OURS)
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == ANSWERED
    assert httpx.post(asked, params={"encoder": "beit3", "text": "green"}).status_code == 403  # another site's form
    assert httpx.get(asked, headers=OURS).status_code == 405
    assert httpx.get(address, headers={"host": "evil.example"}).status_code == 400
    assert httpx.get(f"{address}../../etc/passwd").status_code == 404
    large = httpx.post(asked, params={"encoder": "beit3"}, content=b"\0" * (MAX_IMAGE_BYTES + 1), headers=OURS)
    assert (large.status_code, large.json()["error"]) == (400, "the file is too large; 10 MB are taken")
    bad = httpx.post(asked, params={"encoder": "beit3"}, content=b"<svg onload=alert(1)>", headers=OURS)
    assert bad.status_code == 400
    assert "cannot be used" in bad.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_the_reports_with_a_box(address: str) -> None:
    page = httpx.get(address).text
    assert all(part in page for part in ('id="ask"', 'id="gallery"', "connect-src 'self'"))
    assert "<script>alert" not in page
    assert httpx.get(address).text == page


def pictured(page: bytes) -> list[int]:
    """Return the items whose picture a page has."""
    return [int(item) for item in re.findall(rb"\.i(\d+)\{background-image", page)]


def test_the_page_has_pictures_of_a_folder(encoding: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "A0.png").write_bytes(picture())
    (folder / "A1.jpg").write_bytes(b"no image")
    (tmp_path / "secret.jpg").write_bytes(toy.jpeg((1, 2, 3)))
    (folder / "A2.jpg").symlink_to(tmp_path / "secret.jpg")
    release = Release(encoding)
    tables = list(serving.read_pictures(folder, release.items, range(toy.ITEMS)))
    assert [table["item_id"].to_pylist() for table in tables] == [[0]]
    page = serving.render_page(release, "beit3", folder, ["beit3"])
    assert pictured(page) == [0]
    assert b'id="pictured">[0]<' in page
    assert not pictured(serving.render_page(release, "beit3", None, ["beit3"]))


def test_the_page_has_stored_images(encoding: Path) -> None:
    stored = Layout(encoding.parents[2], "shop").images
    page = serving.render_page(Release(encoding), "beit3", stored, ["beit3"])
    assert pictured(page) == [item for item, colour in enumerate(toy.COLOURS) if colour]


def test_a_folder_without_pictures_is_refused(encoding: Path, tmp_path: Path) -> None:
    for folder, fault in ((tmp_path / "absent", "no such folder"), (tmp_path, "no image of an item shown")):
        result = commands.alignrec("serve", encoding, "--port", "0", "--images", folder)
        assert result.exit_code == 1
        assert fault in result.output


def test_an_items_name_reads_no_file_outside(encoding: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(toy.jpeg((1, 2, 3)))
    items = pa.table({"asin": ["../secret", str(tmp_path / "secret"), "\0"]})
    with pytest.raises(UserError, match="no image of an item shown"):
        list(serving.read_pictures(folder, items, range(3)))


def test_a_release_without_encoders_says_so(encoding: Path, tmp_path: Path) -> None:
    without = shutil.copytree(encoding, tmp_path / "without")
    releases.drop(without, "encoders/")
    with pytest.raises(UserError, match="no encoder in this release"):
        Nearest(Release(without))


def test_a_port_that_is_taken_is_one_line(encoding: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = commands.alignrec("serve", encoding, "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "name another by --port" in result.output


def test_of_all_addresses_only_those_that_are_named_are_answered(
    encoding: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[str] = []
    said: list[str] = []

    class Server:
        def __init__(self, config: Any) -> None:
            (guard,) = config.app.user_middleware
            hosts.extend(guard.kwargs["allowed_hosts"])

        def run(self, sockets: Any) -> None:
            pass

    monkeypatch.setattr(serving.uvicorn, "Server", Server)
    serving.serve(Release(encoding), None, "0.0.0.0", 0, said.append)
    assert sorted(hosts) == ["0.0.0.0", "127.0.0.1", "::1", "[::1]", "localhost"]
    assert said[0].startswith("warning: 0.0.0.0 can be reached from other machines")
