"""Targets: manifest, signature, tables and semantic IDs of a release, and DVC's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import coded
import pyarrow as pa

from pipeline.export.content import of_release
from pipeline.io import sha256
from pipeline.release import manifest, signature, verify
from tests.hostile.fuzz.target import Target, folder, written


@cache
def release() -> Path:
    return coded.outputs(folder("published")).release


def parsed(data: bytes) -> None:
    for file in manifest.parsed(Path("release"), data).files:
        assert (Path("/release") / file.path).resolve().is_relative_to("/release")


def replaced(name: str) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        target = folder("attacked")
        shutil.copytree(release(), target, dirs_exist_ok=True)
        (target / name).write_bytes(data)
        content = json.loads((target / manifest.NAME).read_bytes())
        entry = next(file for file in content["files"] if file["path"] == name)
        entry |= {"bytes": len(data), "sha256": sha256(target / name)}
        try:
            rows, columns = manifest.shape(target / name)
            entry |= {"rows": rows, "columns": [column.model_dump() for column in columns]}
        except (pa.ArrowException, OSError):  # unreadable, so it has no description
            pass
        (target / manifest.NAME).write_text(json.dumps(manifest.with_digest(content)))
        list(verify(target))
        of_release(target, [])
        of_release(target, ["beit3"], coded=True)

    return one


def signed(data: bytes) -> None:
    written(signature.NAME, data)
    signature.check(written("manifest.json", b"{}").parent, b"{}", written("key.pub", data))
    signature.check(written("manifest.json", b"{}").parent, b"{}", None)


def read(name: str) -> bytes:
    return (release() / name).read_bytes()


EDGES, FEATURES, ITEMS = "graph/beit3/edges.parquet", "features/beit3/features-00000.parquet", "items.parquet"
IDS = "semantic_ids/beit3/codes.parquet"
PARQUET = [read(name) for name in (EDGES, FEATURES, ITEMS, IDS)]
NO_MANIFESTS = [
    b"[" * 200_000,
    b'{"made_by": ' + b'{"a": ' * 200_000,
    b'{"format": ' + b"9" * 5000 + b"}",
    b'{"dataset": "\xff"}',
    b"<!DOCTYPE html><html><body>Sign in</body></html>",
    b"",
    b"7",
]
KEYS = [
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8 x",
    b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
]


@cache
def targets() -> dict[str, Target]:
    return {
        "manifest": Target(parsed, [read(manifest.NAME)], refused=NO_MANIFESTS),
        "signature": Target(signed, KEYS),
        "edges": Target(replaced(EDGES), PARQUET, quick=10),
        "features": Target(replaced(FEATURES), [PARQUET[1], *PARQUET], quick=10),
        "items": Target(replaced(ITEMS), [PARQUET[2], *PARQUET], quick=10),
        "semantic-ids": Target(replaced(IDS), [PARQUET[3], *PARQUET], quick=10),
    }
