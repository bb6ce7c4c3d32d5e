"""Targets that fail, each in its own way: by them a test sees that the campaign notices. They are not part of it."""

from __future__ import annotations

import ctypes
import re
from functools import cache

from tests.hostile.fuzz.target import Target

ENDS = {
    b"crash": lambda: ctypes.string_at(0),
    b"hang": lambda: re.fullmatch(r"(a|a)*b", "a" * 60),  # in C, where no handler of Python's runs
    b"memory": lambda: bytearray(2 << 30),
    b"error": lambda: int("x"),
}


@cache
def targets() -> dict[str, Target]:
    def read(data: bytes) -> object:
        return ENDS.get(data, int)()

    return {f"fault-{name.decode()}": Target(read, [b"sound", name]) for name in ENDS}
