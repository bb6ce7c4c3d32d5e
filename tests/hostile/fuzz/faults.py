"""Targets that fail, each in its own way: by them a test sees that the campaign notices. They are not part of it."""

from __future__ import annotations

import ctypes
import re
from functools import cache

from tests.hostile.fuzz.target import Target


def crash(data: bytes) -> None:
    if data.startswith(b"crash"):
        ctypes.string_at(0)


def hang(data: bytes) -> None:
    if data.startswith(b"hang"):
        re.fullmatch(r"(a|a)*b", "a" * 60)  # in C, where no handler of Python's runs


def memory(data: bytes) -> None:
    if data.startswith(b"memory"):
        bytearray(2 << 30)


def error(data: bytes) -> None:
    int(data)


@cache
def targets() -> dict[str, Target]:
    return {
        "fault-crash": Target(crash, [b"sound", b"crash"]),
        "fault-hang": Target(hang, [b"sound", b"hang"]),
        "fault-memory": Target(memory, [b"sound", b"memory"]),
        "fault-error": Target(error, [b"1", b"x"]),
    }
