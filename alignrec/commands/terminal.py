"""Terminal output, error messages and interrupts."""

from __future__ import annotations

import errno
import io
import os
import re
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
from alignrec.pipeline.runtime.removals import name_replacement
from alignrec.schemas import ContractError

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_MESSAGE_CHARACTERS = 2000  # of an error, which may quote data
# base class of all errors in arguments; typer's releases take it from click or their own copy
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
QUERY_INTERRUPTED = "Query interrupted"  # message of DuckDB's RuntimeError
# error messages of libraries that run out of memory, during import or later
OUT_OF_MEMORY = (
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
    parent = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != parent:
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
        # the terminal's encoding may not have all characters
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            with end_on_sigterm():
                returned = super().invoke(ctx)
            sys.stdout.flush()  # detect a closed pipe here rather than at exit
            return returned
        except USAGE_ERROR as e:
            e.message += _name_replacement(e.message)
            raise
        except (Exception, KeyboardInterrupt) as e:
            if _is_interrupt(e):
                code = _report_interrupt(e)
                raise typer.Exit(code) from None
            message = describe_error(e)
            if message is None:
                raise
            if len(message) > MAX_MESSAGE_CHARACTERS:
                message = f"{message[:MAX_MESSAGE_CHARACTERS]} ..."
            say(f"error: {message}", err=True)
            raise typer.Exit(1) from None


def _name_replacement(message: str) -> str:
    """Return the hint for a removed command or option, from typer's message."""
    unknown = re.match("No such (?:command|option):? '?(?:--)?([a-z-]+)", message)
    return name_replacement(unknown[1]) if unknown else ""


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    return type(error) is RuntimeError and str(error) == QUERY_INTERRUPTED


def _report_interrupt(error: BaseException) -> int:
    """Print what is left of the work and return the exit code; exit at once if a thread would block
    the exit.
    """
    event = "terminated" if Terminated.seen else "interrupted"
    code = 128 + (signal.SIGTERM if Terminated.seen else signal.SIGINT)
    # `explain_interrupt` has added a note on unfinished work
    left = getattr(error, "__notes__", ["nothing is left half-done"])[0]
    say(f"{event}: {left}; run the same command again", err=True)

    # outputs survive a kill, but a thread that waits for a silent server would block the exit
    threads = set(threading.enumerate()) - {threading.main_thread()}
    if not all(thread.daemon for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def describe_error(error: BaseException) -> str | None:
    """Return an error message of one line, or None for bugs and closed pipes (`alignrec ... |
    head`).
    """
    if isinstance(error, UserError | ContractError):
        return str(error)
    if _is_out_of_memory(error):
        return process.TOO_LITTLE
    if isinstance(error, ModuleNotFoundError):
        package = not_installed(error)
        if package:
            return str(package)

    place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if _is_disk_full(error):
        return f"{place}the disk is full; make space and run the same command again"
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return None
    return place + (error.strerror or str(error) or type(error).__name__)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    message = str(error)
    is_of_library = isinstance(error, ImportError | RuntimeError)
    return is_of_library and any(words in message for words in OUT_OF_MEMORY)


def _is_disk_full(error: BaseException) -> bool:
    message = str(error)
    if os.strerror(errno.ENOSPC) in message:  # DuckDB raises its own error type
        return True
    if not isinstance(error, OSError):
        return False
    # NumPy reports a full disk only as a mismatch of byte counts
    return error.errno == errno.EDQUOT or "requested and" in message
