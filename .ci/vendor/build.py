"""Bundle the JavaScript of the report's map and of `dvc plots show`, with licences: `make vendor`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MAP, PLOTS = ROOT / "pipeline/report/vendor", ROOT / "alignrec/commands/plots/page.html"
BUNDLE = [
    "--bundle",
    "--minify",
    "--format=iife",
    "--global-name=vendor",
    "--target=es2020",
    "--legal-comments=none",
]
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{{refresh_tag}}
<title>DVC plots</title>
<!-- In the script, which DVC fetches otherwise:

{licences}-->
<script>{script}</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def main() -> None:
    """Download, bundle and write the libraries."""
    # --ignore-scripts: of the packages, which package-lock.json pins by hash, only esbuild runs
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, check=True
    )
    script, licences = joined("map.js")
    (MAP / "map.js").write_text(script, encoding="utf-8")
    (MAP / "LICENSES.txt").write_text(licences, encoding="utf-8")
    script, licences = joined("plots.js")
    PLOTS.write_text(
        PAGE.format(script=script.strip(), licences=licences.replace("-->", "-- >")),
        encoding="utf-8",
    )


def joined(name: str) -> tuple[str, str]:
    """Return the bundle of a script, and the licences of the packages in it."""
    esbuild, to = (
        HERE / "node_modules/@esbuild/linux-x64/bin/esbuild",
        HERE / "node_modules/joined.js",
    )
    meta = to.with_suffix(".json")
    subprocess.run(
        [esbuild, name, *BUNDLE, f"--metafile={meta}", f"--outfile={to}"], cwd=HERE, check=True
    )
    parts = (
        path.split("/")[1]
        for path in json.loads(meta.read_text())["inputs"]
        if path.startswith("node_modules/")
    )
    return to.read_text(encoding="utf-8"), "\n".join(licence(part) for part in sorted(set(parts)))


def licence(name: str) -> str:
    """Return name, version, address and licence of a package; parts of vega without one are under vega's."""
    folder = HERE / "node_modules" / name
    facts = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    file = next(
        folder.glob("LICENSE*"),
        HERE / "node_modules/vega/LICENSE" if name.startswith("vega-") else None,
    )
    text = file.read_text(encoding="utf-8").strip()
    return f"{name} {facts['version']} ({facts['license']}), https://www.npmjs.com/package/{name}\n\n{text}\n\n"


if __name__ == "__main__":
    main()
