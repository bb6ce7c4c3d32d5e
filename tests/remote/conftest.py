"""S3 by moto's server on loopback, or by the one that ALIGNREC_TEST_S3 names; and a bucket a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import httpx
import pytest

from pipeline.remote import stores

SERVER = os.environ.get("ALIGNREC_TEST_S3")
"""such as http://127.0.0.1:7480, with an account whose keys are KEYS; its buckets are deleted after their test"""
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret"}


@pytest.fixture(scope="package")
def s3() -> Iterator[Any]:
    with moto() if SERVER is None else nullcontext(SERVER) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | environment(address)).items():
            patch.setenv(name, value)
        yield stores.s3()


@contextmanager
def moto() -> Iterator[str]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def environment(address: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip


@pytest.fixture
def target(s3: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"bucket{abs(hash(request.node.name))}"
    s3.mkdir(name)
    yield f"s3://{name}/below"
    s3.rm(name, recursive=True)


@pytest.fixture
def denied(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Return a block in which the server knows nobody of our name; moto looks at names only when it is told to."""

    @contextmanager
    def block() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "stranger")
            looks(0)
            yield
            looks("inf")

    return block


@pytest.fixture
def ignorant(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store ignore conditions."""
    whole = type(s3).call_s3

    def call(fs: Any, method: str, **more: Any) -> dict[str, Any]:
        return dict(whole(fs, method, **{key: value for key, value in more.items() if not key.startswith("If")}))

    monkeypatch.setattr(type(s3), "call_s3", call)


def looks(after: int | str) -> None:
    if SERVER is None:
        httpx.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content=str(after).encode())
