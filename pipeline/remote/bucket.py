"""Objects of an S3 bucket by obstore, which retries, resumes and reads AWS_* variables.

Added here: keys of a profile, and anonymous requests without keys.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, installing
from pipeline.http.retries import TransientError
from pipeline.remote.base import BLOCK, CONNECT, TIMEOUT, Absent, s3_path, web_address

LONGEST = timedelta(hours=1)  # of a request that makes progress
IDENTITY = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip
"""variables that choose how requests are signed, and overrule a profile"""
PROFILE = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
HINT = "are AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, right?"
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
        config: Any = settings()
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
            with self.translate_errors():
                return bytes(self.objects.get(name).bytes())
        except Absent:
            return None

    def head(self, name: str) -> tuple[int, str | None] | None:
        """Return the size of an object and the sha256 that `put` gave it; None where there is none."""
        try:
            with self.translate_errors():
                found = self.objects.get(name, options={"head": True})
        except Absent:
            return None
        return found.meta["size"], found.attributes.get("sha256")

    def put(self, name: str, data: bytes, sha256: str) -> None:
        with self.translate_errors():
            self.objects.put(name, data, attributes={"sha256": sha256}, max_concurrency=2)

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


def cause(error: Exception) -> str:
    """Return what failed, in a few words: obstore's messages contain addresses and whole answers of a server."""
    found = CAUSE.search(str(error).partition("\n\nDebug source")[0])
    return next(filter(None, found.groups())).strip() if found else type(error).__name__


def settings() -> dict[str, Any]:
    """Return obstore's options beyond its variables: keys of a profile, or anonymity; and the checked endpoint."""
    config: dict[str, Any] = {} if any(map(os.environ.get, IDENTITY)) else profile() or {"skip_signature": True}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        try:
            config["aws_endpoint_url_s3"] = str(web_address(endpoint))
        except UserError as e:
            raise UserError(f"AWS_ENDPOINT_URL: {e}") from None
    return config


def profile() -> dict[str, str]:
    """Return the keys of the profile AWS_PROFILE, or `default`, in ~/.aws/credentials."""
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    named = os.environ.get("AWS_PROFILE")
    ini = configparser.RawConfigParser(strict=False)
    keys: dict[str, str] = {}
    with suppress(configparser.Error, UnicodeDecodeError, KeyError):
        ini.read(Path(path).expanduser(), encoding="utf-8")
        keys = {key: value for key, value in ini[named or "default"].items() if key in PROFILE}
    if named and not keys:
        raise UserError(
            f"AWS_PROFILE: no keys of {named!r} in {path}; if it is a login or a role, "
            'eval "$(aws configure export-credentials --format env)" makes variables of them'
        )
    return keys
