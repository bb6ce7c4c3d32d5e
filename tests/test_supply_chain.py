"""Installed packages are pinned with hashes."""

import json
import re
import subprocess
import sys
from pathlib import Path

from scripts import script

from alignrec.pipeline.harness.code import ROOT

HASHES = script("hashes")
KNOWN = HASHES.listed((ROOT / "hashes.txt").read_text())
RELEASES = map(HASHES.RELEASE.match, (ROOT / "constraints.txt").read_text().splitlines())
PINNED = {(HASHES.normalised(match[1]), match[2]) for match in RELEASES if match}
NUMPY = next((name, version) for name, version in PINNED if name == "numpy")
GOOD = next(iter(KNOWN[NUMPY]))
INDEX = "https://index.example/numpy.whl"


def entry(name: str, version: str, url: str = INDEX, sha256: str | None = GOOD) -> dict:
    info = {"url": url} | ({"archive_info": {"hashes": {"sha256": sha256}}} if sha256 else {"dir_info": {}})
    return {"metadata": {"name": name, "version": version}, "download_info": info}


ENTRIES: dict[str, tuple[dict, int, str]] = {
    "as listed": (entry(*NUMPY), 0, ""),
    "another spelling": (entry("NumPy", NUMPY[1]), 0, ""),
    "another file": (entry(*NUMPY, sha256="0" * 64), 1, "numpy.whl has sha256 000"),
    "no hash": (entry(*NUMPY, sha256=None), 1, "has sha256 none"),
    "another release": (entry("numpy", "99.0"), 1, "no such release in hashes.txt"),
    "a stranger": (entry("nunpy", "1.0"), 1, "no such release in hashes.txt"),
    "CUDA's": (entry("nvidia-cublas-cu12", "99.0"), 0, "warning: nvidia-cublas-cu12 99.0"),
    "this disk's": (entry("torch", "2.13.0+cpu", "file:///opt/torch.whl", "0" * 64), 0, ""),
    "ourselves": (entry("alignrec", "0.1.0", "file:///here", None), 0, ""),
}


def test_what_came_from_an_index_has_a_listed_hash(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    for case, (installed, code, said) in ENTRIES.items():
        report.write_text(json.dumps({"install": [installed]}))
        command = [sys.executable, "-I", str(ROOT / ".ci/hashes.py"), str(report)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, bool(done.stderr)) == (code, bool(said)), case
        assert said in done.stderr, case


def test_every_release_is_pinned_with_hashes_but_cudas() -> None:
    oracle = HASHES.listed((ROOT / ".ci/torchscale.txt").read_text())
    assert {release for release in PINNED if not (KNOWN | oracle).get(release)} == set()
    names = {name for name, _ in PINNED}
    unpinned = {name for name, _ in KNOWN if name not in names and not name.startswith(HASHES.CUDA)}
    assert unpinned <= {"ray", "httpx2-jsfetch"}  # for a cluster, and for browsers
    recipes = re.findall(r"^\.venv/\S+:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for recipe in recipes:
        assert re.search(r"\$\(INSTALL\).*\n\t\$\(HASHES\)", recipe)
        assert all("--require-hashes" in line for line in recipe.splitlines() if "pip install" in line)
    assert len(recipes) == 3
