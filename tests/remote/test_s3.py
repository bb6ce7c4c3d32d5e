"""Credentials and endpoint of S3, and its failures, on a loopback server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from webserver import Folder, body, listening, serving, status

from alignrec.pipeline.errors import UserError
from alignrec.pipeline.http.retries import TransientError
from alignrec.pipeline.remote import stores
from alignrec.pipeline.remote.stores import BLOCK, open_store

ADDRESS = "s3://bucket/below"
DATA = os.urandom(BLOCK + 70_000)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a setter of AWS_* variables, which clears all others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return lambda **values: [monkeypatch.setenv(f"AWS_{name}", value) for name, value in values.items()]


@pytest.fixture
def server(tmp_path: Path, environment: Callable[..., None]) -> Iterator[Folder]:
    """Serve a folder as a bucket."""
    below = tmp_path / "served/bucket/below"
    below.mkdir(parents=True)
    (below / "file").write_bytes(DATA)
    with listening(Folder(tmp_path / "served")) as server:
        environment(ENDPOINT_URL=server.address)
        yield server


def read(start: int = 0) -> bytes:
    return b"".join(open_store(ADDRESS).read("file", start))


@pytest.mark.parametrize(
    ("values", "signer"),
    [
        ({}, ""),
        ({"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "a-secret"}, "key"),
        ({"SKIP_SIGNATURE": "true"}, ""),
    ],
)
def test_requests_are_signed_by_keys_of_variables_or_anonymous(
    server: Folder, environment: Callable[..., None], values: dict[str, str], signer: str
) -> None:
    environment(**values)
    assert read() == DATA
    (signed,) = {headers.get("Authorization") or "" for headers in server.headers}
    assert signed.partition("Credential=")[2].partition("/")[0] == signer


def test_half_a_key_is_one_line(environment: Callable[..., None]) -> None:
    environment(ACCESS_KEY_ID="key")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY right"):
        open_store(ADDRESS)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://me:a-secret@host:99999", "ftp://host", "http://[::1"])
def test_an_invalid_endpoint_is_one_line_without_its_password(environment: Callable[..., None], endpoint: str) -> None:
    environment(ENDPOINT_URL=endpoint)
    with pytest.raises(UserError, match=r"^AWS_ENDPOINT_URL: ") as e:
        open_store(ADDRESS)
    assert "secret" not in str(e.value)


def test_without_encryption_only_where_the_endpoint_says_so(server: Folder, environment: Callable[..., None]) -> None:
    environment(ENDPOINT_URL=server.address.replace("http:", "https:"))
    with pytest.raises(TransientError):
        read()
    assert not server.asked


@pytest.mark.parametrize("start", [0, 1, BLOCK, len(DATA) - 1, len(DATA), len(DATA) + 1])
def test_reading_begins_anywhere(server: Folder, start: int) -> None:
    assert read(start) == DATA[start:]


def test_a_silent_server_is_given_up_and_another_region_is_named(
    server: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SILENCE", 0.1)
    server.pause = 1
    with pytest.raises(TransientError):
        read()
    server.status = 301
    with pytest.raises(UserError, match=r"the bucket is in another region; set AWS_REGION$"):
        read()


def test_a_redirect_to_another_host_is_refused_and_gets_no_token(environment: Callable[..., None]) -> None:
    with serving({"/bucket/below/file": body(b"theirs")}) as other:
        there = other.address.replace("127.0.0.1", "localhost")
        with serving({"/bucket/below/file": status(307, Location=f"{there}/bucket/below/file")}) as server:
            environment(ENDPOINT_URL=server.address, ACCESS_KEY_ID="key", SECRET_ACCESS_KEY="a", SESSION_TOKEN="b")
            with pytest.raises(UserError, match="redirects to another host, which is refused"):
                read()
        assert server.asked
        assert not other.asked
