"""Targets: manifest and signature of a release, and any file of one with encoders."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from shop import releases, toy

import alignrec
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import leaderboard, manifest, serve, signature
from alignrec.pipeline.release.diff import diff_releases
from alignrec.pipeline.release.encoder import ReleasedEncoders, encode_items
from alignrec.pipeline.release.export.content import read_content
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.schemas import ContractError
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import Target, folder, restored, written

VALUES = [10**9, 2**63, 10**30, 0, -1, 1, 3, 7, 1.5, 1e300, True, None, "x", "../../x", [], {}, [[]]]
"""characters of a number or text in JSON"""
IMAGE = toy.jpeg((200, 0, 0))


@cache
def release() -> Path:
    return releases.with_encoders(folder("with-encoders"), read=True).release


def files() -> dict[str, bytes]:
    """Return path -> content of the valid release."""
    paths = sorted(path for path in release().rglob("*") if path.is_file() and path.name != manifest.MANIFEST_FILE)
    return {path.relative_to(release()).as_posix(): path.read_bytes() for path in paths}


def read_everything(folder: Path) -> None:
    opened = Release(folder).verify()
    for name in ReleasedEncoders(folder).names:
        loaded = ReleasedEncoders(folder).load(name)
        images = [None, normalise_image(IMAGE, loaded.facts.image_size, loaded.facts.image_quality, 10**8).image]
        done = encode_items(loaded, ["a red ball", ""], images)
        assert done.shape == (2, loaded.encoder.width)
        assert np.isfinite(done).all()
    serve.render_page(opened, "beit3", None, ["beit3"])
    diff_releases(release(), folder)
    with unpack_release(opened, ["interactions", "user embeddings"]) as layout:
        read_content(layout, [])
    loaded_release = alignrec.load(folder)
    for vectors in loaded_release.features.values():
        assert np.isfinite(np.asarray(vectors)).all()
    loaded_release.semantic_ids("beit3")
    assert loaded_release.embeddings.items is not None


def attack(data: bytes) -> None:
    """Replace the file that the input names; what does not verify is refused, but `leaderboard` reads it."""
    name, _, content = data.partition(b"\0")
    if name.decode("utf-8", "replace") not in files():
        return
    folder = restored("attacked", release())
    releases.put(folder, name.decode(), content)
    with suppress(UserError, ContractError):
        leaderboard.render_leaderboard([leaderboard.read_entries(folder)])
    read_everything(folder)


def places(of: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value of parsed JSON, at any depth, as its container and key."""
    for key, value in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield of, key
        yield from places(value)


def altered(each: int) -> Iterator[bytes]:
    """Yield inputs: mutated bytes of every file, and mutated values of JSON files."""
    for name, sound in files().items():
        if each == 1 and "-masked" in name:  # of the kinds of beit3's
            continue
        if each > 1 or not name.endswith(".json"):  # there a changed value says more than a byte
            for number in range(1, 1 + each):
                yield name.encode() + b"\0" + mutated(name, number, [sound])
        if name.endswith(".json"):
            rng = random.Random(name)
            for _ in range(each):
                content = json.loads(sound)
                at, key = rng.choice(list(places(content)))
                at[key] = rng.choice(VALUES)
                yield name.encode() + b"\0" + json.dumps(content).encode()


def parsed(data: bytes) -> None:
    for file in manifest.parse(Path("release"), data).files:
        assert (Path("/release") / file.path).resolve().is_relative_to("/release")


def signed(data: bytes) -> None:
    written(signature.SIGNATURE_FILE, data)
    signature.check(written("manifest.json", b"{}").parent, b"{}", written("key.pub", data))
    signature.check(written("manifest.json", b"{}").parent, b"{}", None)


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
        "manifest": Target(parsed, [(release() / manifest.MANIFEST_FILE).read_bytes()], refused=NO_MANIFESTS),
        "signature": Target(signed, KEYS),
        "any-file": Target(attack, [name.encode() + b"\0" + data for name, data in files().items()], quick=3),
    }
