"""Processes forked from one that has loaded the slow libraries, as loading them takes seconds."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

os.fsync = lambda number: None  # type: ignore[assignment]
"""fsync takes 5 ms, and only guards against power cuts, which no test simulates"""
CONTEXT = multiprocessing.get_context("forkserver")
FORKED = [
    *("alignrec.commands.app", "alignrec.pipeline.release.serve", "alignrec.pipeline.release.embed"),
    *("alignrec.pipeline.beit3.pretrain", "alignrec.pipeline.features.encode"),
    *("alignrec.stages.pretrain", "alignrec.stages.study", "alignrec.stages.report", "alignrec.stages.publish"),
    *("pytest", "hypothesis", "torch", "pyarrow.dataset", "duckdb", "faiss", "scipy.stats", "dvc.repo"),
    "transformers.models",  # which takes longer than transformers
    "torch._dynamo",  # which an optimiser loads, in a second
    "tests.preloaded",
]
CONTEXT.set_forkserver_preload(FORKED)


class Started:
    """A process that ends with the tests, with the interface of `subprocess.Popen`."""

    def __init__(self, server: socket.socket, output: int, errors: int) -> None:
        self._server = server
        self._code: int | None = None
        self.pid = int(server.recv(16))
        self.stdout, self.stderr = os.fdopen(output), os.fdopen(errors)

    @property
    def returncode(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._server.settimeout(timeout)
            try:
                self._code = int(self._server.recv(16))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("alignrec", timeout or 0) from None
        return self._code

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return stdout and stderr, which must fit a pipe."""
        self.wait(timeout)
        return self.stdout.read(), self.stderr.read()


def forked() -> None:
    gc.freeze()  # what was loaded before stays, and no collection looks at it
    multiprocessing.current_process().daemon = False  # so that it may start others


def started(main: Callable[..., object], *arguments: object, cwd: Path | None = None, **environment: str) -> Started:
    """Run a function in a new process."""
    from shims import folder  # which imports this module

    (read_output, output), (read_errors, errors) = os.pipe(), os.pipe()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(str(folder() / "socket"))
    request = json.dumps(["", [pickle.dumps((main, arguments)).hex()], str(cwd or Path.cwd()), environment])
    socket.send_fds(server, [request.encode()], [0, output, errors])
    os.close(output)
    os.close(errors)
    return Started(server, read_output, read_errors)


def kill_after(owner: Any, name: str, calls: int = 1) -> None:
    """Have this process kill itself when a function returns for the n-th time."""
    function, called = getattr(owner, name), count(1)

    def counting(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        if next(called) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counting)


def command(*arguments: str) -> None:
    from alignrec.commands.app import app

    app([*arguments])


def alignrec(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Started:
    return started(command, *map(str, arguments), cwd=cwd, **environment)


@contextmanager
def here(places: Any, make: Callable[[], Callable[[Any], Any]]) -> Iterator[Any]:
    """Replace `engine.Processes.opened` in this process, as loading torch in another takes seconds.

    Each job is done as soon as it is submitted; what goes to workers and comes from them is pickled all the same.
    """
    worker = cache(pickle.loads(pickle.dumps(make)))

    def submit(job: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(pickle.loads(pickle.dumps(worker()(pickle.loads(pickle.dumps(job))))))
        return done

    yield submit
