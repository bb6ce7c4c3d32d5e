"""Names of the files of a release, and paths that an untrusted manifest may list."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise

from alignrec.pipeline.runtime.releases import MANIFEST_FILE

SIGNATURE_FILE = f"{MANIFEST_FILE}.sig"  # only in signed releases
SAMPLE = "sample"  # address of the release that comes with the package
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_PATH_BYTES = 1024  # as file systems limit paths
MAX_NAME_BYTES = 255  # of a component of a path
RESERVED = re.compile(r"CON|PRN|AUX|NUL|(COM|LPT)[0-9\u00b9\u00b2\u00b3]")
FORBIDDEN_CHARACTERS = frozenset("\\:\0")  # in a path


def find_path_fault(paths: list[str]) -> str:
    for path in paths:
        if not _is_inside(path):
            return f"{path!r} is no path inside the release"
        if not all(map(_is_shared, path.split("/"))):
            return f"{path!r} is no name on some systems"
        longest_name = max(len(name.encode()) for name in path.split("/"))
        if len(path.encode()) > MAX_PATH_BYTES or longest_name > MAX_NAME_BYTES:
            return f"{path!r} is longer than file systems take"

    # on some systems, paths that differ only in case or composition are one file
    folded = {path: unicodedata.normalize("NFC", path).casefold() for path in paths}
    counts = Counter([MANIFEST_FILE, SIGNATURE_FILE, *(folded[path] for path in paths)])
    for path in paths:
        if folded[path] in (MANIFEST_FILE, SIGNATURE_FILE):
            return f"lists {path} itself"
        if counts[folded[path]] > 1:
            return f"{path!r} is named twice"

    # sorts children directly after their parent
    ordered = sorted(path.replace("/", "\0") for path in counts)
    for above, below in pairwise(ordered):
        if below.startswith(f"{above}\0"):
            path = below.replace("\0", "/")
            return f"{path!r}: its parent path is a file"
    return ""


def _is_shared(name: str) -> bool:
    """Return whether a name means a file on all systems: Windows reserves some, in any case and
    with any ending.
    """
    stem = name.partition(".")[0].strip().upper()
    return not name.endswith((".", " ")) and not RESERVED.fullmatch(stem)


def _is_inside(path: str) -> bool:
    is_plain = all(name not in ("", ".", "..") for name in path.split("/"))
    return is_plain and path.isprintable() and not FORBIDDEN_CHARACTERS.intersection(path)
