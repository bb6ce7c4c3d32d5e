"""Writes pipeline/report/vendor/: the libraries of the report's map, and their licences: `make vendor`.

npm fetches what package-lock.json names, held to its hashes; nothing of it runs but esbuild, which joins the files.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
TO = HERE.parent.parent / "pipeline/report/vendor"
BUNDLE = ["--bundle", "--minify", "--format=iife", "--global-name=vendor", "--target=es2020", "--legal-comments=none"]


def main() -> None:
    """Fetch, join, and gather the licences of what went in."""
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    esbuild = HERE / "node_modules/@esbuild/linux-x64/bin/esbuild"
    meta = HERE / "node_modules/meta.json"
    subprocess.run(
        [esbuild, "map.js", *BUNDLE, f"--metafile={meta}", f"--outfile={TO / 'map.js'}"], cwd=HERE, check=True
    )
    parts = (path.split("/")[1] for path in json.loads(meta.read_text())["inputs"] if path.startswith("node_modules/"))
    (TO / "LICENSES.txt").write_text("\n".join(licence(name) for name in sorted(set(parts))), encoding="utf-8")


def licence(name: str) -> str:
    """Return name, version, address and licence of a package."""
    folder = HERE / "node_modules" / name
    facts = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    text = next(folder.glob("LICENSE*")).read_text(encoding="utf-8").strip()
    return f"{name} {facts['version']} ({facts['license']}), https://www.npmjs.com/package/{name}\n\n{text}\n\n"


if __name__ == "__main__":
    main()
