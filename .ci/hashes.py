"""Check installed packages against hashes.txt: `python -I .ci/hashes.py REPORT...`, reports of `pip install --report`.

pip's --require-hashes supports neither editable installs nor a preinstalled torch. Unlisted CUDA libraries, which
depend on the builds of torch and FAISS, only cause a warning.
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
    """Return the normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(lines: str) -> dict[tuple[str, str], set[str]]:
    """Parse hashes.txt: (package, version) -> sha256 of its files."""
    hashes: dict[tuple[str, str], set[str]] = {}
    files: set[str] = set()
    for line in lines.splitlines():
        if release := RELEASE.match(line):
            files = hashes.setdefault((normalised(release[1]), release[2]), set())
        files.update(HASH.findall(line))
    return hashes


def faults(
    report: dict[str, Any], known: dict[tuple[str, str], set[str]]
) -> Iterator[tuple[str, bool]]:
    """Yield a message for each unlisted file, and whether it is an error; local files are not checked."""
    for entry in report["install"]:
        source = entry["download_info"]
        name, version = normalised(entry["metadata"]["name"]), entry["metadata"]["version"]
        if source["url"].startswith("file:"):
            continue
        sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256", "none")
        if (name, version) not in known:
            yield (
                f"{name} {version}: no such release in hashes.txt; not checked",
                not name.startswith(CUDA),
            )
        elif sha256 not in known[name, version]:
            yield (
                f"{name} {version}: {source['url'].rpartition('/')[2]} has sha256 {sha256}, which hashes.txt lacks",
                True,
            )


def main(reports: list[str]) -> int:
    """Check reports, print errors and return the exit code."""
    known = listed((ROOT / "hashes.txt").read_text(encoding="utf-8"))
    wrong = [
        fault
        for path in reports
        for fault in faults(json.loads(Path(path).read_text("utf-8")), known)
    ]
    for fault, refused in wrong:
        print(
            f"error: {fault}; delete this environment" if refused else f"warning: {fault}",
            file=sys.stderr,
        )
    return int(any(refused for _, refused in wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
