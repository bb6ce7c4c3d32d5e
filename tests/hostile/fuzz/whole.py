"""Target: any file of a release with encoders, its manifest right, read by all that reads a release."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

import alignrec
from pipeline.compare import leaderboard
from pipeline.compare.releases import diff
from pipeline.errors import UserError
from pipeline.export.content import of_release
from pipeline.release import encoded, encoder
from pipeline.release.manifest import NAME
from pipeline.release.read import Release, unpacked
from schemas import ContractError
from tests.hostile.fuzz import encoders
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.target import Target, restored

BETWEEN = b"\0"
"""a file's name and its content"""


def files() -> list[str]:
    paths = (path for path in encoders.release().rglob("*") if path.is_file())
    return sorted(path.relative_to(encoders.release()).as_posix() for path in paths if path.name != NAME)


def everything(folder: Path) -> None:
    opened = Release(folder).verified()
    for name in encoder.names(folder):
        done = encoded.vectors(encoder.load(folder, name), ["a red ball", ""], [None, None])
        assert np.isfinite(done.vectors).all()
    encoders.page(opened)
    of_release(folder, [])
    of_release(folder, ["beit3"], coded=True)
    diff(encoders.release(), folder, changed=2)
    with unpacked(opened, ["interactions", "user embeddings"]):
        pass
    loaded = alignrec.load(folder)
    for vectors in loaded.features.values():
        assert np.isfinite(np.asarray(vectors)).all()
    loaded.semantic_ids("beit3")
    assert loaded.embeddings.items is not None


def read(data: bytes) -> None:
    """Replace the file that the input names; what does not verify is refused, and `leaderboard` reads it anyway."""
    name, _, content = data.partition(BETWEEN)
    if name.decode("utf-8", "replace") not in files():
        return
    folder = restored("attacked-whole", encoders.release())
    encoders.put(folder, name.decode(), content)
    with suppress(UserError, ContractError):
        leaderboard.html(leaderboard.read(folder))
    everything(folder)


def named(name: str, content: bytes) -> bytes:
    return name.encode() + BETWEEN + content


def altered(each: int) -> Iterator[bytes]:
    """Yield inputs: of every file some with other bytes, and of a JSON file as many with another value."""
    for name in files():
        sound = encoders.read(name)
        for number in range(1, 1 + each):
            yield named(name, mutated(name, number, [sound]))
        if name.endswith(".json"):
            rng, content = random.Random(name), json.loads(sound)
            for at, key in rng.choices(list(encoders.places(content)), k=each):
                yield from (named(name, one) for one in encoders.other(content, at, key, rng.choice(encoders.VALUES)))


@cache
def targets() -> dict[str, Target]:
    return {"any-file": Target(read, [named(name, encoders.read(name)) for name in files()], quick=3)}
