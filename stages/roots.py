"""Where the stages' outputs lie: a folder of this machine, or a bucket, which stages alone work in."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from pipeline.errors import UserError
from pipeline.run import There, seen
from pipeline.stage import Stage

ADDRESS = re.compile(r"(?!s3://)([A-Za-z0-9+.-]{2,}):/")
"""what is no path, and no bucket"""
Place = tuple[Path, Callable[[], AbstractContextManager[None]], There]
"""folder in which a stage works; what holds a lock against parts on machines that do not see it; and `Run.there`"""


@contextmanager
def opened(root: str, dataset: str, stage: Stage, part: tuple[int, int] | None = None) -> Iterator[Place]:
    """Yield where a stage works: the root itself, or a folder that is brought from a bucket, and sent there after.

    Args:
        root: a folder, or s3://bucket/prefix.
        dataset: its name.
        stage: whose files are made.
        part: see `Run.part`.

    Raises:
        UserError: the root is neither; and what `bucket.opened` raises.
    """
    if not root.startswith("s3://"):
        yield _path(root), nullcontext, seen
        return
    from pipeline.remote import bucket  # loads what releases need

    with bucket.opened(root, dataset, stage, part) as place:
        yield place


def folder(root: str | Path) -> Path:
    """Return the root of a command that is no stage; UserError says where a bucket's files lie on this machine."""
    if not str(root).startswith("s3://"):
        return _path(str(root))
    from pipeline.remote import bucket

    here = bucket.folders(str(root)) / "0"
    raise UserError(f"--root: only stages work in a bucket; what those of this machine read and made is in {here}")


def _path(root: str) -> Path:
    if found := ADDRESS.match(root):
        raise UserError(f"--root: no outputs can lie at '{found[1]}:'; name a folder, or s3://bucket/prefix")
    return Path(root)
