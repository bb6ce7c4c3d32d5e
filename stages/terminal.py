"""Terminal output: commands print through `say` and `show`, errors end them through `Group`."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from pipeline import memory
from pipeline.errors import UserError, not_installed, printable
from schemas import ContractError

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 2000  # characters of an error; data may be in it
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as shells have them
LACKING = (
    "failed to map segment",
    "cannot allocate memory",
    "Cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "cannot apply additional memory",
)  # what libraries say of memory that is not there, when they are loaded and later


class Interrupted(Exception):
    """The user pressed Ctrl-C, or the system asked the process to end. The message says what is left."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end (SIGTERM)."""

    seen = False  # whether it did; DuckDB drops the exception, and raises its own


def _ends(error: BaseException) -> bool:
    """Return whether an error is Ctrl-C or SIGTERM, during a query of DuckDB too."""
    return isinstance(error, KeyboardInterrupt) or (type(error) is RuntimeError and str(error) == "Query interrupted")


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end this process as Ctrl-C does; those that it forks end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != own:
            os._exit(TERMINATED)
        Terminated.seen = True
        raise Terminated

    Terminated.seen = False
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str, err: bool = False) -> None:
    typer.echo(printable(text), err=err)


def show(*tables: RenderableType) -> None:
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: object) -> Text:
            return super().render_str(printable(text), **(options | {"markup": False, "emoji": False}))  # type: ignore[arg-type]

    Plain().print(*tables)


@contextmanager
def interruptible(left: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as e:
        if not _ends(e):
            raise
        raise Interrupted(left) from None


class Group(TyperGroup):
    """A command group whose errors are one line and exit code 1, and Ctrl-C one line and 130."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        write_any_character()
        try:
            with terminable():
                returned = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe is noticed here, and not at exit
            return returned
        except (UserError, ContractError) as e:
            fail(str(e))
        except BrokenPipeError:  # of `alignrec ... | head`; click ends without a word
            raise
        except OSError as e:
            fail(describe_io_error(e))
        except ModuleNotFoundError as e:
            if (lacking := not_installed(e)) is None:
                raise
            fail(str(lacking))
        except MemoryError:
            fail(memory.TOO_LITTLE)
        except (Interrupted, KeyboardInterrupt, ImportError, RuntimeError) as e:
            if isinstance(e, Exception) and any(words in str(e) for words in LACKING):
                fail(memory.TOO_LITTLE)
                raise typer.Exit(1) from None
            if not (isinstance(e, Interrupted) or _ends(e)):
                raise
            how, code = ("terminated", TERMINATED) if Terminated.seen else ("interrupted", INTERRUPTED)
            left = str(e) if isinstance(e, Interrupted) else "nothing is left half-done"
            say(f"{how}: {left}; run the same command again", err=True)
            _end_at_once(code)
            raise typer.Exit(code) from None
        raise typer.Exit(1)


def fail(message: str) -> None:
    say(f"error: {message}" if len(message) <= LONGEST else f"error: {message[:LONGEST]} ...", err=True)


def describe_io_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; make space and run the same command again"
    return where + (error.strerror or str(error) or type(error).__name__)


def write_any_character() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end_at_once(code: int) -> None:
    """End the process if threads would hold it, such as one that waits for a silent server; files survive a kill."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc=what, unit="B", unit_scale=True, disable=None) as bar:

        def at(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield at
