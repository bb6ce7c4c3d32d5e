"""S3 by moto's server on loopback, and a bucket a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.remote import stores


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server).items():
            patch.setenv(name, value)
        yield stores.s3()
    server.stop()


def environment(server: Any) -> dict[str, str]:
    host, port = server.get_host_and_port()
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip


@pytest.fixture
def target(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"bucket{abs(hash(request.node.name))}"
    s3.mkdir(name)
    return f"s3://{name}/below"
