"""Identifiers of users and items: one rule, in SQL for interactions and in Python for items."""

from typing import Any

WHITE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())
"""Unicode's white space, as Python's str.strip has it: U+0009 .. U+3000"""


def stripped(text: str) -> str:
    """Return SQL for a column without white space at its ends, null if nothing is left; `named` is the same in Python.

    Most values have none, and trim is slow: it takes a hundred times as long as the comparisons before it.
    """
    text, white = f"({text})", f"'{WHITE}'"
    suspect = f"strlen({text}) <> length({text}) OR {text} < '!' OR {text}[-1] < '!'"  # not ASCII, or blank at an end
    trimmed = f"CASE WHEN contains({white}, {text}[1]) OR contains({white}, {text}[-1]) THEN trim({text}, {white})"
    return f"nullif(CASE WHEN {suspect} THEN {trimmed} ELSE {text} END ELSE {text} END, '')"


def named(value: Any) -> str | None:
    """Return the identifier that a field of a record holds; None where it holds none."""
    return None if value is None or isinstance(value, (bool, list, dict)) else str(value).strip() or None
