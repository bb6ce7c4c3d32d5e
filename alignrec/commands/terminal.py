"""Terminal output, error messages and interrupts."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from alignrec.pipeline.io.errors import UserError, not_installed, printable
from alignrec.pipeline.runtime import process
from alignrec.schemas import ContractError

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 2000  # characters of an error message, which may quote data
QUERY_INTERRUPTED = "Query interrupted"  # message of DuckDB's RuntimeError
# error messages of libraries that run out of memory, during import or later
LACKING = (
    "failed to map segment",
    "annot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "cannot apply additional memory",
)


def say(text: str, err: bool = False) -> None:
    typer.echo(printable(text), err=err)


def show(*tables: RenderableType) -> None:
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            plain = options | {"markup": False, "emoji": False}
            return super().render_str(printable(text), **plain)

    Plain().print(*tables)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM."""

    seen = False  # whether SIGTERM was received; DuckDB replaces the exception with its own


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    # forked processes inherit the handler but have nothing to clean up, so they exit immediately
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


@contextmanager
def explain_interrupt(left: str) -> Iterator[None]:
    """Attach a note on unfinished work to Ctrl-C and SIGTERM, which `Group` prints."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as e:
        e.add_note(left)
        raise


class Group(TyperGroup):
    """Command group that prints errors in one line and exits with 1, or 130 after Ctrl-C."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(
                    errors="replace"
                )  # the terminal's encoding may not have all characters
        try:
            with end_on_sigterm():
                returned = super().invoke(ctx)
            sys.stdout.flush()  # detect a closed pipe here rather than at exit
            return returned
        except (Exception, KeyboardInterrupt) as e:
            interrupted = isinstance(e, KeyboardInterrupt) or (
                type(e) is RuntimeError and str(e) == QUERY_INTERRUPTED
            )
            if not interrupted:
                if (message := describe_error(e)) is None:
                    raise
                say(
                    f"error: {message}"
                    if len(message) <= LONGEST
                    else f"error: {message[:LONGEST]} ...",
                    err=True,
                )
                raise typer.Exit(1) from None
            how, number = (
                ("terminated", signal.SIGTERM)
                if Terminated.seen
                else ("interrupted", signal.SIGINT)
            )
            # `explain_interrupt` has added a note on unfinished work
            left = getattr(e, "__notes__", ["nothing is left half-done"])[0]
            say(f"{how}: {left}; run the same command again", err=True)
            # outputs survive a kill, but a thread that waits for a silent server would block the exit
            if any(
                not thread.daemon
                for thread in threading.enumerate()
                if thread is not threading.main_thread()
            ):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(128 + number)
            raise typer.Exit(128 + number) from None


def describe_error(error: BaseException) -> str | None:
    """Return an error message of one line, or None for bugs and closed pipes (`alignrec ... | head`)."""
    if isinstance(error, UserError | ContractError):
        return str(error)
    lacking_words = isinstance(error, ImportError | RuntimeError) and any(
        words in str(error) for words in LACKING
    )
    if isinstance(error, MemoryError) or lacking_words:
        return process.TOO_LITTLE
    if isinstance(error, ModuleNotFoundError) and (lacking := not_installed(error)):
        return str(lacking)
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    full = os.strerror(errno.ENOSPC) in str(error)  # DuckDB raises its own error type
    # NumPy reports a full disk only as a mismatch of byte counts
    if full or (
        isinstance(error, OSError)
        and (error.errno == errno.EDQUOT or "requested and" in str(error))
    ):
        return f"{where}the disk is full; make space and run the same command again"
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return None
    return where + (error.strerror or str(error) or type(error).__name__)
