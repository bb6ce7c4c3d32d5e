"""Targets: what a release says of its encoders and of its probes, read as `embed` and `serve` read it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import coded
import numpy as np
import toy
from safetensors.numpy import load, save

from pipeline.release import encoded, encoder, verify
from pipeline.release.read import Release
from pipeline.serve import command
from tests.hostile import test_foreign_release
from tests.hostile.fuzz.target import Target, folder

BEIT3 = "encoders/beit3"
FACTS, CONFIG, WEIGHTS, WHITENING, TOKENIZER = (
    f"{BEIT3}/{name}"
    for name in ("encoder.json", "config.json", "encoder.safetensors", "whitening.safetensors", "tokenizer.spm")
)
PROBES = "probes.json"
IMAGE = toy.jpeg((200, 0, 0))


@cache
def release() -> Path:
    return coded.with_encoders(folder("with-encoders"), read=True).release


def read(name: str) -> bytes:
    return (release() / name).read_bytes()


def put(release: Path, name: str, data: bytes) -> None:
    """Replace a file, and make all that the manifest says of it agree."""
    (release / name).write_bytes(data)
    test_foreign_release.agree(release, name)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    own = Path(name).name
    test_foreign_release.edit(release, lambda m: [w.update(facts) for w in m["weights"] if w["name"] == own])


def attacked(name: str, data: bytes) -> Release:
    target = folder("attacked-encoders")
    shutil.copytree(release(), target, dirs_exist_ok=True)
    put(target, name, data)
    list(verify(target))
    return Release(target)


def encoding(name: str) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        loaded = encoder.load(attacked(name, data).folder, "beit3")
        done = encoded.vectors(loaded, ["a red ball", ""], [None, encoded.normalised(IMAGE, loaded.facts).image])
        assert done.vectors.shape == (2, loaded.encoder.width)
        assert np.isfinite(done.vectors).all()

    return one


def shown(data: bytes) -> None:
    page(attacked(PROBES, data))


def page(opened: Release) -> None:
    command.html(opened, toy.PARAMS, opened.folder, ["beit3"])


VALUES = [10**9, 2**63, 10**30, 0, -1, 1, 3, 7, 1.5, 1e300, True, None, "x", "../../x", [], {}, [[]]]
"""of a number or text in JSON"""


def places(of: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the object or list that holds each value of parsed JSON, at any depth, and its key there."""
    for key, value in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield of, key
        yield from places(value)


def other(whole: Any, at: Any, key: Any, *values: object) -> Iterator[bytes]:
    before = at[key]
    for value in values:
        at[key] = value
        yield json.dumps(whole).encode()
    at[key] = before


def numbers(name: str) -> Iterator[bytes]:
    whole = json.loads(read(name))
    for at, key in list(places(whole)):
        yield from other(whole, at, key, *VALUES)
        if isinstance(at, dict):
            before = at.pop(key)
            yield json.dumps(whole).encode()
            at[key] = before
    yield json.dumps(whole | {"more": 1}).encode()


NO_CONFIG = {
    **{"layers": 10**9, "image": 10**9, "patch": 7, "vocab": 10**6, "width": 128, "heads": 3, "ffn": 65},
    **{"positions": -1, "codes": 8, "mlm": "yes", "more": 1},
}
NO_PROBES = {"verdicts": 7, "zero_shot": {"chance": {"hit@10": "x"}}, "processed": {"width": -1}}
NO_FACTS = {
    **{"batch_size": 0, "image_size": 10**9, "image_quality": 0, "reads": ["sound"], "weights": "../../x"},
    **{"packages": {"": "1"}, "encoder": "huggingface"},
}


def wrong(name: str, values: dict[str, Any]) -> list[bytes]:
    whole = json.loads(read(name))
    return [json.dumps(whole | {key: value}).encode() for key, value in values.items()]


def tensors_of(sound: bytes) -> Iterator[bytes]:
    """Yield a file of weights with another shape, type, name or value of a tensor, and what is no such file."""
    arrays = load(sound)
    first = sorted(arrays)[0]
    x = arrays[first]
    for other in (x[..., None], x.astype(np.float64), x.astype(np.int64), x[:0], np.full_like(x, np.nan)):
        yield save(arrays | {first: np.ascontiguousarray(other)})
    yield save({**arrays, "more": x})
    yield save({key: x for key, x in arrays.items() if key != first})
    yield save({key: np.full_like(x, np.inf) for key, x in arrays.items()})
    yield sound[:-1]
    yield sound + b"\0"
    yield (1 << 60).to_bytes(8, "little") + sound[8:]
    yield b"\x80\x04cos\nsystem\n(S'true'\ntR."


@cache
def targets() -> dict[str, Target]:
    return {
        "encoder-facts": Target(encoding(FACTS), [read(FACTS), *numbers(FACTS)], refused=wrong(FACTS, NO_FACTS)),
        "encoder-config": Target(encoding(CONFIG), [read(CONFIG), *numbers(CONFIG)], refused=wrong(CONFIG, NO_CONFIG)),
        "encoder-weights": Target(encoding(WEIGHTS), [read(WEIGHTS)], refused=[*tensors_of(read(WEIGHTS))]),
        "encoder-map": Target(encoding(WHITENING), [read(WHITENING)], refused=[*tensors_of(read(WHITENING))]),
        "encoder-tokenizer": Target(encoding(TOKENIZER), [read(TOKENIZER), b"", read(TOKENIZER)[:100]]),
        "released-probes": Target(shown, [read(PROBES), *numbers(PROBES)], refused=wrong(PROBES, NO_PROBES)),
    }
