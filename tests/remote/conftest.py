"""S3 by moto's server on loopback, with a bucket per test."""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret"}


@pytest.fixture(scope="package")
def s3() -> Iterator[Any]:
    """Set the environment for the server; return a client other than the product's."""
    boto3 = pytest.importorskip("boto3")
    with moto() as address, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in (KEYS | environment(address)).items():
            patch.setenv(name, value)
        yield boto3.client("s3")


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
def stored(s3: Any) -> Callable[[str], dict[str, str]]:
    """Return a function that lists a bucket: key -> ETag."""
    return lambda bucket: {o["Key"]: o["ETag"] for o in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


@pytest.fixture
def bucket(s3: Any, stored: Callable[[str], dict[str, str]], request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"bucket{abs(hash(request.node.name))}"
    s3.create_bucket(Bucket=name)
    yield name
    for key in stored(name):
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def target(bucket: str) -> str:
    return f"s3://{bucket}/below"


@pytest.fixture
def denied(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which the server rejects our key, which moto checks only on demand."""

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
    """Make the server ignore conditional requests."""
    app = importlib.import_module("moto.server").DomainDispatcherApplication
    whole = app.__call__

    def call(self: Any, environ: dict[str, Any], start: Any) -> Any:
        return whole(self, {k: v for k, v in environ.items() if not k.startswith("HTTP_IF_")}, start)

    monkeypatch.setattr(app, "__call__", call)


def looks(after: int | str) -> None:
    httpx.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content=str(after).encode())
