"""The Hugging Face Hub: its file system, and what the exceptions of its client mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import UserError
from pipeline.http.retries import Absent, TransientError

CLIENTS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "fsspec"}
"""packages whose exceptions are failures of the network or of the server"""
HINT = "is HF_TOKEN, or the login of `hf auth login`, right?"


def file_system() -> Any:
    """Return the Hub, with the token of the environment or of the login."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Translate exceptions of the client into Absent, TransientError or a UserError.

    Their messages are dropped, because clients put signed addresses and tokens into them.
    """
    try:
        yield
    except Exception as e:
        if not isinstance(e, OSError) and type(e).__module__.partition(".")[0] not in CLIENTS:
            raise
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status in (401, 403):
            raise UserError(f"{address}: access denied (HTTP {status}); {HINT}") from None
        if status == 404 or isinstance(e, FileNotFoundError):
            raise Absent(f"{address}: no such repository or file, or no access to it; {HINT}") from None
        errno = e.errno if isinstance(e, OSError) else None
        raise TransientError(type(e).__name__ if errno is None else os.strerror(errno)) from None
