"""Objects of an S3 bucket by obstore, which retries, resumes and reads AWS_* variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pipeline.errors import UserError, installing
from pipeline.http.hub import Absent
from pipeline.http.retries import TransientError
from pipeline.remote.addresses import BLOCK, CONNECT, TIMEOUT, s3_path, web_address

LONGEST = timedelta(hours=1)  # of a request that makes progress
IDENTITY = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip
"""variables that choose how requests are signed; without one of them they are anonymous"""
HINT = (
    "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right? "
    'eval "$(aws configure export-credentials --format env)" sets them from a profile'
)
CAUSE = re.compile(r"<Code>(\w{1,64})</Code>|status code: (\d{3}[ \w]*)|: ([\w ]+)$", re.MULTILINE)
"""the server's error code, such as SignatureDoesNotMatch, or the HTTP status, or what failed"""
OTHER_REGION = ("configured region", "AuthorizationHeaderMalformed", "PermanentRedirect")


class Bucket:
    """The objects below an address; UserError: access denied, TransientError: a failure after obstore's retries."""

    def __init__(self, address: str, silence: float = TIMEOUT) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise UserError(f"s3:// needs another package: {installing('s3')}") from None
        path = s3_path(address)
        self.address = f"s3://{path}"
        bucket, _, prefix = path.partition("/")
        config: Any = {} if any(map(os.environ.get, IDENTITY)) else {"skip_signature": True}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            config["aws_endpoint_url_s3"] = _checked(endpoint)
        try:
            self.objects = S3Store(
                bucket, prefix=prefix or None, config=config, disable_bulk_delete=True,  # which not every server knows
                client_options={
                    "allow_http": config.get("aws_endpoint_url_s3", "").startswith("http:"),
                    "connect_timeout": timedelta(seconds=CONNECT), "read_timeout": timedelta(seconds=silence),
                    "timeout": LONGEST,
                },
            )  # fmt: skip
        except BaseError as e:
            raise UserError(f"{self.address}: {cause(e)}; {HINT}") from None

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        with self.translate_errors():
            if start and start >= self.objects.head(name)["size"]:  # a range past the end would be refused
                return
            found = self.objects.get(name, options={"range": {"offset": start}} if start else {})
            yield from map(bytes, found.stream(BLOCK))

    def get(self, name: str) -> bytes | None:
        try:
            return b"".join(self.read(name))
        except Absent:
            return None

    def create(self, name: str, data: bytes) -> bool:
        """Put an object if there is none; return whether it did. After a lost answer, the one there may be this one."""
        from obstore.exceptions import AlreadyExistsError

        with self.translate_errors():
            try:
                self.objects.put(name, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def delete(self, name: str) -> None:
        with self.translate_errors():
            self.objects.delete(name)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            raise Absent from None
        except (PermissionDeniedError, UnauthenticatedError) as e:
            raise UserError(f"{self.address}: access denied ({cause(e)}); {HINT}") from None
        except BaseError as e:
            if any(sign in str(e) for sign in OTHER_REGION):
                raise UserError(f"{self.address}: the bucket is in another region; set AWS_REGION") from None
            raise TransientError(cause(e)) from None


def _checked(endpoint: str) -> str:
    try:
        return str(web_address(endpoint))
    except UserError as e:
        raise UserError(f"AWS_ENDPOINT_URL: {e}") from None


def cause(error: Exception) -> str:
    """Return what failed, in a few words: obstore's messages contain addresses and whole answers of a server."""
    found = CAUSE.search(str(error).partition("\n\nDebug source")[0])
    return next(filter(None, found.groups())).strip() if found else type(error).__name__
