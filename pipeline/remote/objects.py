"""The objects below one address of an S3 bucket: read, put whole, put on a condition, listed, deleted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import UserError
from pipeline.http.retries import TransientError, retry
from pipeline.remote import stores
from pipeline.remote.stores import Absent

TRIES = 6
"""of each request, beside the client's own"""
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
"""codes of S3 for a condition that does not hold"""
Result = TypeVar("Result")


class Head(NamedTuple):
    """What a bucket says of an object."""

    etag: str
    """another one whenever other bytes were put"""
    bytes: int
    sha256: str | None
    """as its sender found it; None where that was not us"""


class Objects:
    """The objects below an address; names are relative to it. Failures that a retry may cure are tried TRIES times."""

    def __init__(self, address: str, fs: Any = None) -> None:
        self.fs, self.base = fs or stores.s3(), stores.s3_path(address)
        self.address = f"s3://{self.base}"

    def check(self) -> None:
        """Raise UserError where there is no such bucket, or no right to look into it."""
        with self.said():
            self._try(lambda: self.fs.call_s3("head_bucket", Bucket=self.base.partition("/")[0]))

    def names(self, below: str) -> dict[str, str]:
        """Return name -> ETag of all objects below a folder, names relative to it."""
        start = f"{self.base}/{below}/"
        found = self._try(lambda: self.fs.find(start[:-1], detail=True))
        return {n.removeprefix(start): o["ETag"].strip('"') for n, o in found.items() if n.startswith(start)}

    def head(self, name: str) -> Head | None:
        """Return what is said of an object; None where there is none."""
        try:
            said = self._try(lambda: self._call("head_object", name))
        except Absent:
            return None
        return Head(said["ETag"].strip('"'), said["ContentLength"], said["Metadata"].get("sha256"))

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes; None where there is none."""
        try:
            return bytes(self._try(lambda: self.fs.cat_file(f"{self.base}/{name}")))
        except Absent:
            return None

    def put(self, name: str, data: bytes, sha256: str) -> None:
        """Put an object, and its hash in its metadata."""
        self._try(lambda: self.fs.pipe_file(f"{self.base}/{name}", data, Metadata={"sha256": sha256}))

    def put_if(self, name: str, data: bytes, **condition: Any) -> str | None:
        """Put an object if a condition holds; return its ETag, or None where it does not hold.

        Where an answer was lost on its way, the next try finds that the condition does not hold: look who was it.

        Args:
            name: of the object.
            data: at most 5 GB.
            condition: arguments of `put_object`: IfNoneMatch="*" where there must be none yet, IfMatch=ETag where it
                must be the one that was seen; others.
        """

        def once() -> str | None:
            try:
                return str(self._call("put_object", name, Body=data, **condition)["ETag"]).strip('"')
            except OSError as e:
                if stores.code_of(e) not in TAKEN:
                    raise
                return None

        try:
            return self._try(once)
        except Absent:
            if "IfNoneMatch" in condition:  # it is the bucket that is absent
                raise
            return None

    def require_conditions(self, name: str, instead: str) -> None:
        """Raise UserError, and delete an object that is there, where the store puts it as if there were none."""
        if self.put_if(name, b"", IfNoneMatch="*"):
            self.delete(name)
            raise UserError(f"{self.address}/{name}: this store knows no conditional PUT, {instead}")

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        self._try(lambda: self.fs.rm_file(f"{self.base}/{name}"))

    def send(self, path: Path, name: str, sha256: str) -> None:
        """Put a file, and its hash in its metadata; large ones in several pieces, which appear as one."""
        self._try(lambda: self.fs.put_file(str(path), f"{self.base}/{name}", Metadata={"sha256": sha256}))

    def fetch(self, name: str, path: Path) -> None:
        """Write an object's bytes to a file; raises Absent where there is none."""
        self._try(lambda: self.fs.get_file(f"{self.base}/{name}", str(path)))

    @contextmanager
    def said(self) -> Iterator[None]:
        """Turn an absent bucket, and failures that no try has cured, into a UserError."""
        try:
            yield
        except Absent:
            raise UserError(f"{self.address}: no such bucket") from None
        except TransientError as e:
            raise UserError(f"{self.address}: {e}; run again to continue") from None

    def _try(self, work: Callable[[], Result]) -> Result:
        def once() -> Result:
            with stores.translated_errors(self.address, stores.S3_HINT):
                return work()

        return retry(once, TRIES)

    def _call(self, method: str, name: str, **more: Any) -> dict[str, Any]:
        bucket, _, key = f"{self.base}/{name}".partition("/")
        return dict(self.fs.call_s3(method, Bucket=bucket, Key=key, **more))
