"""Rename and delete unfinished files and folders, and never what a link in them leads to."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from alignrec.pipeline.io.errors import UserError


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder, if it is there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, onerror=_raise_unless_gone)


def is_free(path: Path) -> bool:
    """Return whether a path is absent or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def rename_file(path: Path, to: Path) -> None:
    """Rename a file onto another; OSError if the disk has not done what it says."""
    path.replace(to)
    require_renamed(path, to)


def rename_folder(folder: Path, to: Path) -> None:
    """Rename a folder to a path that is absent or an empty folder."""
    if to.exists():
        to.rmdir()  # Windows renames to absent paths only
    folder.rename(to)
    require_renamed(folder, to)


def require_renamed(path: Path, to: Path) -> None:
    if os.path.lexists(path):
        raise OSError(errno.EIO, "still has its old name after it was renamed", str(to))


def _raise_unless_gone(
    function: Callable[..., object],
    path: str,
    error: tuple[type[BaseException], BaseException, object],
) -> None:
    if not isinstance(error[1], FileNotFoundError):  # another process may delete it, too
        raise error[1]


def refuse_links(path: Path, root: Path) -> None:
    """Raise UserError if `path` or a part of it below `root` is a link, as what it leads to would
    be overwritten and deleted.
    """
    for part in [path, *path.parents]:
        if part == root:
            return
        if part.is_symlink():
            raise UserError(
                f"{part}: a link, and files there would be deleted; "
                "delete the link, or give the whole folder another place by --root"
            )


def unlink_special(folder: Path) -> None:
    """Delete what is neither a file nor a folder: links, pipes, sockets and devices."""
    folders = [folder]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry))
                elif not entry.is_file(follow_symlinks=False):
                    Path(entry).unlink(missing_ok=True)
