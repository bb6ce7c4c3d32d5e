"""Holds what pip installed to hashes.txt: `python -I .ci/hashes.py <report>...`, where pip wrote <report> by --report.

pip's --require-hashes refuses an editable install, and a torch that lies on the disk. So the Makefile lets pip install
by constraints.txt, and runs this before anything that was installed: each file of an index must be one whose sha256
hashes.txt lists. CUDA's libraries, which torch's and FAISS's builds choose, are named if they are not, not refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RELEASE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
CUDA = ("nvidia-", "cuda-", "triton")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def normalised(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(lines: str) -> dict[tuple[str, str], set[str]]:
    """Return (package, version) -> sha256 of its files, from the text of hashes.txt."""
    hashes: dict[tuple[str, str], set[str]] = {}
    files: set[str] = set()
    for line in lines.splitlines():
        if release := RELEASE.match(line):
            files = hashes.setdefault((normalised(release[1]), release[2]), set())
        files.update(HASH.findall(line))
    return hashes


def faults(report: dict[str, Any], known: dict[tuple[str, str], set[str]]) -> Iterator[tuple[str, bool]]:
    """Yield a line for each file of an index that hashes.txt does not list, and whether it must not be used.

    Files of this disk are its owner's.
    """
    for entry in report["install"]:
        source = entry["download_info"]
        name, version = normalised(entry["metadata"]["name"]), entry["metadata"]["version"]
        if source["url"].startswith("file:"):
            continue
        sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256", "none")
        if (name, version) not in known:
            yield f"{name} {version}: no such release in hashes.txt; not checked", not name.startswith(CUDA)
        elif sha256 not in known[name, version]:
            yield (
                f"{name} {version}: {source['url'].rpartition('/')[2]} has sha256 {sha256}, which hashes.txt lacks",
                True,
            )


def main(reports: list[str]) -> int:
    """Check pip's reports; print faults, and return the exit code."""
    known = listed((ROOT / "hashes.txt").read_text(encoding="utf-8"))
    wrong = [fault for path in reports for fault in faults(json.loads(Path(path).read_text("utf-8")), known)]
    for fault, refused in wrong:
        print(f"error: {fault}; delete this environment" if refused else f"warning: {fault}", file=sys.stderr)
    return int(any(refused for _, refused in wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
