"""Processes forked from one that has loaded the slow libraries, as loading them takes seconds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.fsync = lambda number: None  # type: ignore[assignment]
"""fsync takes 5 ms, and only guards against power cuts, which no test simulates"""
CONTEXT = multiprocessing.get_context("forkserver")
FORKED = [
    *("alignrec.commands.app", "alignrec.pipeline.serve.app", "alignrec.pipeline.embed.command"),
    *("alignrec.pipeline.pretrain.train", "alignrec.pipeline.encode.write"),
    *("alignrec.stages.pretrain", "alignrec.stages.study", "alignrec.stages.report", "alignrec.stages.publish"),
    *("pytest", "hypothesis", "torch", "pyarrow.dataset", "duckdb", "faiss", "scipy.stats", "dvc.repo"),
    "transformers.models",  # which takes longer than transformers
    "torch._dynamo",  # which an optimiser loads, in a second
]
CONTEXT.set_forkserver_preload(FORKED)


class Started:
    """A process that ends with the tests, with the interface of `subprocess.Popen`."""

    def __init__(self, process: Any, output: int, errors: int) -> None:
        self._process = process
        self.pid: int = process.pid
        self.stdout = os.fdopen(output)
        self.stderr = os.fdopen(errors)

    @property
    def returncode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("alignrec", timeout or 0)
        return self.returncode

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


def _enter(
    main: Callable[..., object], arguments: tuple[object, ...], cwd: Path, environment: Mapping[str, str],
    session: bool, output: Connection, errors: Connection,
) -> None:  # fmt: skip
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    output.close()
    errors.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # else of another file
    os.chdir(cwd)
    os.environ.update(environment)
    time.tzset()
    forked()
    if session:
        os.setsid()
    main(*arguments)


def started(
    main: Callable[..., object], *arguments: object, cwd: Path | None = None, session: bool = False, **environment: str
) -> Started:
    """Run a function, or code by `exec`, in a new process, and in a new session on request."""
    (read_output, output), (read_errors, errors) = CONTEXT.Pipe(duplex=False), CONTEXT.Pipe(duplex=False)
    own = (main, arguments, cwd or Path.cwd(), environment, session, output, errors)
    process = CONTEXT.Process(target=_enter, args=own, daemon=True)
    process.start()
    output.close()
    errors.close()
    return Started(process, *(os.dup(one.fileno()) for one in (read_output, read_errors)))


def command(*arguments: str) -> None:
    from alignrec.commands.app import app

    app([*arguments])


def alignrec(*arguments: str | Path, cwd: Path | None = None, session: bool = False, **environment: str) -> Started:
    return started(command, *map(str, arguments), cwd=cwd, session=session, **environment)


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
