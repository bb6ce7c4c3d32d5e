"""Build alignrec/sample.zip, the small release in the wheel, from the `sample` release that dvc.lock records."""

import hashlib
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.release.stores import SAMPLE_FILE

ROOT = Path(__file__).parent.parent
RELEASE = Path("outputs/publish/sample/release")
STAGE = "publish@sample"
SETS = ("linear", "beit3")
MOST = 4_000_000  # maximum bytes of the zip file
WHOLE = ("results.json", "probes.json")
EPOCH = (1980, 1, 1, 0, 0, 0)  # constant timestamp, so that equal content gives equal bytes
CARD = """---
{header}
---

# alignrec features: {dataset}, the small release

{items:,} items, {users:,} users, {interactions:,} interactions of the embedded dataset `{dataset}`, version {version}:
feature sets {sets}, their graphs, the trained recommender's vectors, and what was measured. It comes with the
package alignrec. All vectors are rounded to float16 and stored as float32. Networks, other feature sets, semantic
IDs and the study are in the whole release, whose manifest has the sha256
`{part_of}`; no picture is in either.

{licence}
"""


def main() -> None:
    """Write alignrec/sample.zip."""
    target = ROOT / "alignrec" / SAMPLE_FILE
    run = recorded(
        yaml.safe_load((ROOT / "dvc.lock").read_text()),
        ROOT / ".dvc/cache/files/md5",
        ROOT / RELEASE,
    )
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "release"
        reduce(ROOT / RELEASE, small)
        pack(small, target, run)
    if (size := target.stat().st_size) > MOST:
        sys.exit(f"{target}: {size:,} bytes, more than {MOST:,}; take a feature set out of SETS")
    print(f"{target}: {size:,} bytes, {run}")


def recorded(lock: Mapping[str, Any], cache: Path, release: Path) -> str:
    """Return stage and hash of the release in dvc.lock; exits if the files are of another run."""
    (out,) = lock["stages"][STAGE]["outs"]
    name = out["md5"]
    try:
        listed = {
            row["relpath"]: row["md5"]
            for row in json.loads((cache / name[:2] / name[2:]).read_text())
        }
        found = hashlib.md5(
            (release / manifests.MANIFEST_FILE).read_bytes(), usedforsecurity=False
        ).hexdigest()
    except FileNotFoundError as e:
        sys.exit(f"{e.filename}: not there; run `dvc repro` first")
    if listed[f"{release.name}/{manifests.MANIFEST_FILE}"] != found:
        sys.exit(f"{release}: not the release that dvc.lock records; run `dvc repro` first")
    return f"{STAGE} {name}"


def reduce(release: Path, small: Path) -> None:
    """Write the small version of a release to an empty folder and verify it."""
    whole, kept = manifests.load(release), list[File]()
    for file in whole.files:
        if (
            file.table
            and (file.feature_set or SETS[0]) in SETS
            and not file.path.startswith("semantic_ids/")
        ):
            _rounded(release / file.path, small / file.path)
        elif file.path in WHOLE:
            io.write_bytes(small / file.path, (release / file.path).read_bytes())
        else:
            continue
        kept.append(manifests.describe_file(small, small / file.path, file.table))
    part_of = io.sha256(release / manifests.MANIFEST_FILE)
    io.write_bytes(small / "README.md", _card(whole, release / "README.md", part_of).encode())
    kept.append(manifests.describe_file(small, small / "README.md", None))
    files = sorted(kept, key=lambda file: file.path)
    changed = {"files": files, "weights": [], "part_of": part_of}
    changed |= {"encoders": {name: one for name, one in whole.encoders.items() if name in SETS}}
    manifests.write(small / manifests.MANIFEST_FILE, whole.model_copy(update=changed))
    verify(small)


def pack(folder: Path, target: Path, comment: str) -> None:
    """Write the files of a folder to a reproducible zip file."""
    with io.atomic(target) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.comment = comment.encode()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(member, path.read_bytes(), compresslevel=9)


def _rounded(source: Path, target: Path) -> None:
    # values rounded to float16 but stored as float32 end in zeros, which byte-stream split groups for compression
    table = pq.read_table(source, partitioning=None)
    vectors = [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]
    for name in vectors:
        half = io.matrix(table[name]).astype(np.float16)
        assert np.isfinite(half).all(), f"{source}: {name}"
        column = io.vectors(half.astype(np.float32)).cast(table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    split: list[str] = [f"{name}.list.element" for name in vectors]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        target,
        compression="zstd",
        compression_level=19,
        use_dictionary=not vectors,
        use_byte_stream_split=split,
    )


def _card(manifest: Manifest, card: Path, part_of: str) -> str:
    """Return the card of the small release, with header and licence of the whole one."""
    text = card.read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    header.pop("configs", None)
    licence = re.search(r"^## Sources and licence\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert licence, f"{card}: no licence"
    return CARD.format(
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        dataset=manifest.dataset,
        version=manifest.version,
        sets=", ".join(f"`{name}`" for name in SETS),
        licence=licence[0].strip(),
        part_of=part_of,
        **manifest.counts.model_dump(),
    )


if __name__ == "__main__":
    main()
