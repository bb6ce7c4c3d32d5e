"""The error for users to fix, printed as one line without a traceback."""


class UserError(Exception):
    """Something the user can fix. The message says what, where, and what to do."""


def one_line(message: object, limit: int = 300) -> str:
    """Return a message as one printable line of at most `limit` characters; other people's messages have many."""
    text = " ".join(str(message)[: 4 * limit].split())
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"
