"""The error for users to fix, printed as one line without a traceback; and text of others, made safe to print."""

JOINERS = frozenset("\u200c\u200d")
"""join letters and emoji to one sign, and do nothing else"""


class UserError(Exception):
    """Something the user can fix. The message says what, where, and what to do."""


def one_line(message: object, limit: int = 300) -> str:
    """Return a message as one printable line of at most `limit` characters; other people's messages have many."""
    plain = printable(" ".join(str(message)[: 4 * limit].split()))
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def printable(text: str) -> str:
    """Return text as a terminal may print it: one line, without escapes, changes of direction or broken characters.

    Data, file names and servers' messages are anybody's: an escape sequence in them could rewrite what is on the
    screen. White space becomes a space, all else that is not printable a replacement character.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS else " " if c.isspace() else "\ufffd" for c in text)
