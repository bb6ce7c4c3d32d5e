"""Terminal output: commands print through `say` and `show`, errors end them through `Group`."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.core import TyperGroup

from alignrec.pipeline.errors import UserError, not_installed, printable
from alignrec.pipeline.harness import memory
from alignrec.schemas import ContractError

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 2000  # characters of an error; data may be in it
LACKING = (
    "failed to map segment",
    "annot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "cannot apply additional memory",
)  # what libraries say of memory that is not there, when they are loaded and later


def say(text: str, err: bool = False) -> None:
    typer.echo(printable(text), err=err)


def show(*tables: RenderableType) -> None:
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: object) -> Text:
            return super().render_str(printable(text), **(options | {"markup": False, "emoji": False}))  # type: ignore[arg-type]

    Plain().print(*tables)


class Terminated(KeyboardInterrupt):
    """The system asked the process to end (SIGTERM)."""

    seen = False  # whether it did; DuckDB drops the exception, and raises its own


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    """Have SIGTERM end this process as Ctrl-C does; those that it forks end at once."""
    # processes that were forked inherit the handler, and have nothing to clean up
    own = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != own:
            os._exit(128 + number)
        Terminated.seen = True
        raise Terminated

    Terminated.seen = False
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_interrupt(error: BaseException) -> bool:
    """Return whether an error is Ctrl-C or SIGTERM, during a query of DuckDB too."""
    return isinstance(error, KeyboardInterrupt) or (type(error) is RuntimeError and str(error) == "Query interrupted")


@contextmanager
def explain_interrupt(left: str) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the command with a line that says what is left."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as e:
        e.add_note(left)
        raise


class Group(TyperGroup):
    """A command group whose errors are one line and exit code 1, and Ctrl-C one line and 130."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # writes any character
        try:
            with end_on_sigterm():
                returned = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe is noticed here, and not at exit
            return returned
        except (Exception, KeyboardInterrupt) as e:
            # what is left is in the note that `explain_interrupt` added
            if is_interrupt(e):
                _end_interrupted(*getattr(e, "__notes__", ["nothing is left half-done"])[:1])
            if (message := describe_error(e)) is None:
                raise
            say(f"error: {message}" if len(message) <= LONGEST else f"error: {message[:LONGEST]} ...", err=True)
        raise typer.Exit(1)


def describe_error(error: BaseException) -> str | None:
    """Return an error in one line; None for a bug, and for a closed pipe, as of `alignrec ... | head`."""
    if isinstance(error, UserError | ContractError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, ImportError | RuntimeError) and any(words in str(error) for words in LACKING)
    ):
        return memory.TOO_LITTLE
    if isinstance(error, ModuleNotFoundError) and (lacking := not_installed(error)):
        return str(lacking)
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    full = os.strerror(errno.ENOSPC) in str(error)  # of DuckDB's errors too, which are no OSError
    if full or (isinstance(error, OSError) and error.errno == errno.EDQUOT):
        return f"{where}the disk is full; make space and run the same command again"
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return None
    return where + (error.strerror or str(error) or type(error).__name__)


def _end_interrupted(left: str) -> NoReturn:
    how, number = ("terminated", signal.SIGTERM) if Terminated.seen else ("interrupted", signal.SIGINT)
    say(f"{how}: {left}; run the same command again", err=True)
    # files survive a kill; threads would hold the process, such as one that waits for a silent server
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)
    raise typer.Exit(128 + number) from None
