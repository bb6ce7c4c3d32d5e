"""S3 by moto's server on loopback, with a client other than the product's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OURS = {
    "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}  # fmt: skip


@contextmanager
def serving_s3() -> Iterator[Any]:
    """Set the environment for the server; return a client other than the product's."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in (OURS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            patch.setenv(name, value)
        yield boto3.client("s3")
    server.stop()


def stored(s3: Any, bucket: str) -> list[str]:
    """List the keys of a bucket."""
    return sorted(one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", []))
