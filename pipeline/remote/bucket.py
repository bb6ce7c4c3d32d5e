"""A root in a bucket, in a folder of this machine: opened for a stage, or only read by the nodes of a cluster."""

import itertools
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import platformdirs
from filelock import FileLock, Timeout

from pipeline import parallel
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.remote import stores
from pipeline.remote.lock import Lock
from pipeline.remote.mirror import LOCK, Mirror, Part
from pipeline.remote.objects import Objects
from pipeline.run import There
from pipeline.stage import Stage

READ = "read"
"""of the mirrors of a root, that of processes which only read"""
Alone = Callable[[], AbstractContextManager[None]]
"""holds the stage's lock in the bucket, and brings what others have done; nothing where it is held anyway"""


@contextmanager
def opened(root: str, dataset: str, stage: Stage, part: Part = None) -> Iterator[tuple[Path, Alone, There]]:
    """Yield a mirror, in which a stage works, and which is sent in the end.

    Args:
        root: s3://bucket/prefix.
        dataset: its name.
        stage: whose files are made, under its lock; what it reads is brought, of a late stage when it is read, and the
            records of all before it.
        part: see `Run.part`; parts share the stage, and a part brings its own shards of it alone.

    Raises:
        UserError: no such bucket, no rights, an altered object, a lock that was lost.
    """
    if parallel.world() > 1:
        raise UserError("--root s3:// is for one process; the processes of torchrun share a folder: name that one")
    objects = Objects(root)
    objects.check()
    lock = Lock(objects, f"{stage.name}/{dataset}/{LOCK}")
    with _folder(root) as folder, nullcontext() if part else lock.held():
        try:
            layout, reads = Layout(folder, dataset), [earlier.name for earlier in stage.reads]
            for name in stage.before():
                there = Mirror(objects, layout, name, late=stage.late)
                there.bring() if name in reads else there.bring_records()
            own = Mirror(objects, layout, stage.name, lock, part)
            own.bring()
            with own.sending():
                yield folder, own.alone if part else nullcontext, partial(_there, own, [*reads, stage.name])
        except UserError as e:
            raise UserError(str(e).replace(str(folder), objects.address)) from None


def _there(own: Mirror, stages: Sequence[str], layout: Layout) -> Callable[[], Layout]:
    """Send what is finished; return what gives, on a machine that does not see this folder, a layout of its own."""
    with own.objects.said():
        own.send()
    return partial(brought, own.objects.address, stages, layout)


def brought(root: str, stages: Sequence[str], layout: Layout) -> Layout:
    """Return a layout of this machine's own, to read from; its files are brought, once for all processes that read.

    Args:
        root: s3://bucket/prefix.
        stages: whose files are brought.
        layout: of another machine.

    Raises:
        UserError: what `opened` raises; says which machine.
    """
    own = replace(layout, root=folders(root) / READ)
    own.root.mkdir(parents=True, exist_ok=True)
    try:
        objects = Objects(root)
        objects.check()
        with FileLock(own.root / LOCK):
            for name in stages:
                Mirror(objects, own, name, late=True).bring()
    except UserError as e:
        raise UserError(f"{platform.node()}: {e}") from None
    return own


def folders(root: str) -> Path:
    """Return the folder of the mirrors of a root, 0, 1, ...: several where several runs of one machine work at once."""
    return platformdirs.user_cache_path("alignrec") / "s3" / quote(stores.s3_path(root), safe="")


@contextmanager
def _folder(root: str) -> Iterator[Path]:
    """Yield the first mirror that no other process works in."""
    for number in itertools.count():
        folder = folders(root) / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            break
    try:
        yield folder
    finally:
        lock.release()
