"""Images of items to embed: bytes in the table, or files of a folder."""

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.sources.base import is_path, spellings
from alignrec.pipeline.sources.tabular import split_values

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


class FoundImage(NamedTuple):
    """An image of an item, before it is decoded."""

    image: Path | bytes | None  # path inside the image folder, or the bytes of the file
    status: str  # ok, missing, too_large or blocked: see schemas.IMAGE_STATUSES
    reason: str = ""

    def read(self, max_bytes: int) -> bytes | None:
        """Return the bytes of the image; None without one or if it is larger than `max_bytes`."""
        if self.image is None:
            return None
        if isinstance(self.image, Path):
            return self.image.read_bytes() if self.image.stat().st_size <= max_bytes else None
        return self.image if len(self.image) <= max_bytes else None


def find_image(asin: str, folder: Path | None, cell: Any = None) -> FoundImage:
    """Return the first image of an item, by default the file named after it, or why there is none.

    Args:
        asin: Identifier of the item.
        folder: Folder of image files.
        cell: Bytes, path or address of the item's image, or a list of them.
    """
    entries = [_unpack_entry(entry) for entry in (cell if isinstance(cell, list) else [cell])]
    for entry in entries:
        if isinstance(entry, bytes):
            return FoundImage(entry, "ok")

    addresses = split_values(entries if isinstance(cell, list) else entries[0])
    names = list(filter(is_path, addresses))
    if folder is None:
        if names:
            raise UserError(
                f"item {asin!r} names the image {names[0]!r}; "
                "pass the folder that holds it with --images"
            )
        if addresses:
            reason = "its image is on the web, and only files are read"
            return FoundImage(None, "missing", reason)
        return FoundImage(None, "missing", "no folder of images")

    inside = folder.resolve()
    candidates = names or [f"{asin}{ending}" for ending in ENDINGS]
    for name in chain.from_iterable(map(spellings, candidates)):
        image = _find_file(name, inside)
        if image is not None:
            return image
    expected = names[0] if names else f"{asin}.*"
    return FoundImage(None, "missing", one_line(f"no file {expected} among the images", 200))


def _unpack_entry(entry: Any) -> Any:
    if isinstance(entry, dict):  # the image type of Hugging Face `datasets`
        entry = entry.get("bytes") or entry.get("path")
    return str(entry) if isinstance(entry, int) else entry


def _find_file(name: str, folder: Path) -> FoundImage | None:
    """Find a file in a folder whose links are resolved; None if it is not there."""
    if "\0" in name:
        return FoundImage(None, "blocked", "its image lies outside the folder")
    try:
        path = (folder / name).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError) as e:  # such as a name that is too long or a symlink loop
        return FoundImage(None, "missing", f"no such file among the images: {one_line(e, 100)}")
    if not path.is_relative_to(folder):
        return FoundImage(None, "blocked", "its image lies outside the folder")
    return FoundImage(path, "ok") if is_file else None
