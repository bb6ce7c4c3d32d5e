"""Images of items to embed: bytes in the table, or files of a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.sources.base import is_path
from alignrec.pipeline.sources.tabular import split_values

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
MAX_IMAGES = 32  # tried per item


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


def find_image(asin: str, folder: Path) -> FoundImage:
    """Find the image file that is named after an item, inside a folder."""
    return list_images(asin, None, folder, 1)[0]


def list_images(asin: str, cell: Any, images: Path | None, most: int) -> list[FoundImage]:
    """Return the images of an item in the order to try, or why there is none."""
    entries = [_unpack_entry(entry) for entry in (cell if isinstance(cell, list) else [cell])]
    files = [FoundImage(entry, "ok") for entry in entries if isinstance(entry, bytes)]
    if files:
        return files[:MAX_IMAGES] if most > 1 else files[:1]

    addresses = split_values(entries if isinstance(cell, list) else entries[0])
    names = list(filter(is_path, addresses))
    if images is None:
        if names:
            raise UserError(
                f"item {asin!r} names the image {names[0]!r}; "
                "pass the folder that holds it with --images"
            )
        if addresses:
            reason = "its image is on the web, and only files are read"
            return [FoundImage(None, "missing", reason)]
        return [FoundImage(None, "missing", "no folder of images")]

    limit = MAX_IMAGES if most > 1 else 1
    found: list[FoundImage] = []
    inside = images.resolve()
    for candidate in names or _usual_names(asin, most):
        image = _find_file(candidate, inside)
        if image is None and names and most > 1:
            image = FoundImage(None, "missing", _no_file(candidate))
        if image is not None:
            found.append(image)
        if len(found) == limit:
            break
    expected = names[0] if names else f"{asin}.*"
    return found or [FoundImage(None, "missing", _no_file(expected))]


def _unpack_entry(entry: Any) -> Any:
    if isinstance(entry, dict):  # the image type of Hugging Face `datasets`
        entry = entry.get("bytes") or entry.get("path")
    return str(entry) if isinstance(entry, int) else entry


def _usual_names(asin: str, most: int) -> Iterator[str]:
    """Yield the names of image files of an item whose row names none: a.jpg, a_1.jpg, a_2.jpg."""
    stems = [asin]
    if most > 1:
        stems += [f"{asin}_{number}" for number in range(1, most + 1)]
    for stem in stems:
        yield from (f"{stem}{ending}" for ending in ENDINGS)


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


def _no_file(name: str) -> str:
    return one_line(f"no file {name} among the images", 200)
