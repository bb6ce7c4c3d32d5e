"""Which keys and which address S3 is asked with, and what becomes of failures; the server is on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from webserver import Folder, listening

from pipeline.errors import UserError
from pipeline.http.retries import TransientError
from pipeline.remote.bucket import Bucket
from pipeline.remote.stores import BLOCK, store

ADDRESS = "s3://bucket/below"
DATA = os.urandom(BLOCK + 70_000)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return what sets AWS_* variables; none but those are set."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
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


def read(start: int = 0, address: str = ADDRESS) -> bytes:
    return b"".join(store(address).read("file", start))


# --- keys


def signers(server: Folder) -> set[str]:
    """Return the ids of the keys that requests were signed with; "" for none."""
    read()
    return {
        (a or "").partition("Credential=")[2].partition("/")[0]
        for a in (h.get("Authorization") for h in server.headers)
    }


CREDENTIALS = """
[default]
aws_access_key_id = plain
aws_secret_access_key = a-secret%1
[other]
aws_access_key_id = other
aws_secret_access_key = a-secret
aws_session_token = token
[login]
sso_start_url = https://login
"""


def test_without_keys_requests_are_anonymous(server: Folder) -> None:
    assert signers(server) == {""}


@pytest.mark.parametrize(
    ("values", "signer"),
    [
        ({}, "plain"),
        ({"PROFILE": "other"}, "other"),
        ({"PROFILE": "other", "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "a-secret"}, "key"),
        ({"SKIP_SIGNATURE": "true"}, ""),
        ({"SHARED_CREDENTIALS_FILE": "/dev/null"}, ""),
    ],
)
def test_variables_come_before_a_profile(
    server: Folder, environment: Callable[..., None], tmp_path: Path, values: dict[str, str], signer: str
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(CREDENTIALS)
    environment(**values)
    assert signers(server) == {signer}


@pytest.mark.parametrize("name", ["login", "absent"])
@pytest.mark.parametrize("text", [CREDENTIALS, "a-secret", "[login\na-secret", "[login]\na-secret = \xff"])
def test_a_profile_without_keys_says_how_to_make_variables_of_it(
    environment: Callable[..., None], tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(text, encoding="latin-1")
    environment(PROFILE=name)
    with pytest.raises(UserError, match=f"no keys of '{name}' in ~/.aws/credentials.*export-credentials") as e:
        store(ADDRESS)
    assert "secret" not in str(e.value)


def test_half_a_key_is_said(environment: Callable[..., None]) -> None:
    environment(ACCESS_KEY_ID="key")
    with pytest.raises(UserError, match="Missing SecretAccessKey"):
        store(ADDRESS)


# --- addresses


@pytest.mark.parametrize("name", ["ENDPOINT_URL", "ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    "endpoint", ["nonsense", "http://me:a-secret@host:99999", "ftp://host", "http://", "http://[::1"]
)
def test_an_endpoint_that_is_no_address_is_said(environment: Callable[..., None], name: str, endpoint: str) -> None:
    environment(**{name: endpoint})
    with pytest.raises(UserError, match=r"^AWS_ENDPOINT_URL: the address is not valid") as e:
        store(ADDRESS)
    assert "secret" not in str(e.value)


def test_without_encryption_only_where_the_endpoint_says_so(server: Folder, environment: Callable[..., None]) -> None:
    environment(ENDPOINT_URL=server.address.replace("http:", "https:"))
    with pytest.raises(TransientError, match=r"error sending request"):
        read()
    assert not server.asked
    environment(ENDPOINT_URL=server.address)
    assert read() == DATA


# --- failures


@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, len(DATA) - 1, len(DATA), len(DATA) + 1])
def test_reading_begins_anywhere(server: Folder, start: int) -> None:
    assert read(start) == DATA[start:]


def test_a_silent_server_is_given_up(server: Folder) -> None:
    server.pause = 1
    blocks = Bucket(ADDRESS, silence=0.1).read("file")
    with pytest.raises(TransientError, match=r"error sending request|response body error"):
        list(blocks)


def test_another_region_is_said(server: Folder) -> None:
    server.status = 301
    with pytest.raises(UserError, match=r"the bucket is in another region; set AWS_REGION$"):
        read()
