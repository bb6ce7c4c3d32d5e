"""A lock in a bucket: an object that is put where there is none, and put again while its owner lives.

Clocks of machines are not compared. Who waits looks whether the object changes, for LEASE seconds of its own clock.
"""

import json
import os
import platform
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import UserError, printable
from pipeline.http.retries import TransientError
from pipeline.remote.objects import Objects

LEASE = 60.0
"""seconds without a change after which a lock is taken over"""
RENEWALS = 6
"""of a lock in LEASE seconds"""
POLL = 1.0
"""seconds between two looks at somebody's lock, on average"""
PATIENCE = 3600.0
"""seconds to wait for an owner that lives"""
WAITING = (
    "{}: {}, is at work; waiting for its end, or for {:.0f} s without a sign of it; if it is gone, delete that object"
)


class Lock:
    """A lock; `held` holds it while a block runs, `check` says whether it is still ours."""

    def __init__(self, objects: Objects, name: str) -> None:
        self.objects, self.name = objects, name
        self.address = f"{objects.address}/{name}"
        self.etag: str | None = None
        self.renewed = 0.0
        self.owner = {"host": platform.node(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock while the block runs; wait for another owner that lives.

        Raises:
            UserError: another has held it for PATIENCE seconds; says who. Or the store ignores conditions.
        """
        with self.objects.said():
            self._take()
            self.objects.require_conditions(self.name, "so no lock; name a folder as root")
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=[ended], daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if self._is_ours():
                with self.objects.said():
                    self.objects.delete(self.name)
            self.etag, self.renewed = None, 0.0

    def check(self) -> None:
        """Raise UserError if the lock was held, and another may have taken it since; does nothing where it was not."""
        if self.renewed and not self._is_ours():
            raise UserError(
                f"{self.address}: this run lost its lock, as it was deleted or not renewed for {LEASE:.0f} s, and "
                "another may be at work; run again when none is"
            )

    def _is_ours(self) -> bool:
        return self.etag is not None and time.monotonic() - self.renewed < LEASE

    def _take(self) -> None:
        """Put the lock; see `held`."""
        seen, began = "", time.monotonic()
        self.mark, changed = uuid.uuid4().hex, began
        while not self._put(IfNoneMatch="*"):
            etag, owner = self._look()
            if not etag:  # it was deleted since
                continue
            if owner.get("mark") == self.mark:  # ours was put, and the answer was lost
                self.etag, self.renewed = etag, time.monotonic()
                return
            who = f"process {owner.get('pid')} of {owner.get('host')}, since {owner.get('since')}"
            if not seen:
                print(printable(WAITING.format(self.address, who, LEASE)), file=sys.stderr, flush=True)
            if etag != seen:
                seen, changed = etag, time.monotonic()
            elif time.monotonic() - changed >= LEASE and self._put(IfMatch=seen):
                return
            if time.monotonic() - began > PATIENCE:
                raise UserError(
                    f"{self.address}: {who}, has held it for an hour; stop it, or delete that object, and run again"
                )
            time.sleep(random.uniform(POLL / 2, 3 * POLL / 2))

    def _look(self) -> tuple[str, dict[str, Any]]:
        """Return ETag and content of the lock; no ETag where there is none."""
        head, text = self.objects.head(self.name), self.objects.get(self.name)
        try:
            return (head.etag, dict(json.loads(text))) if head and text else ("", {})
        except (ValueError, TypeError):
            return head.etag if head else "", {}

    def _put(self, **condition: str) -> bool:
        """Put the lock with another content than before; return whether the condition held."""
        at, text = time.monotonic(), json.dumps({**self.owner, "mark": self.mark, "sign": uuid.uuid4().hex})
        etag = self.objects.put_if(self.name, text.encode(), **condition)
        if etag:
            self.etag, self.renewed = etag, at
        return bool(etag)

    def _renew(self, ended: threading.Event) -> None:
        while self.etag and not ended.wait(LEASE / RENEWALS):
            try:
                if not self._put(IfMatch=self.etag):
                    etag, owner = self._look()
                    self.etag = etag if owner.get("mark") == self.mark else None
            except (TransientError, UserError):  # such as a network that is gone for a while; `check` looks at the time
                continue
