"""Hostile parameter files: each ends in one line, at once."""

import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages import params

GOOD = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"
BOMB = "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))

TABLE = {
    "nothing": ("", "valid dictionary"),
    "a list": ("[1]\n", "valid dictionary"),
    "not text": (b"\xff\xfe\x00", "not YAML"),
    "not YAML": ("a: [", "not YAML"),
    "a repeated key": (GOOD + "train: {lr: 1.0, lr: 2.0}\n", "key 'lr' stands here twice"),
    "a repeated key of a thousand letters": (f"{'k' * 1000}: 1\n" * 2, "stands here twice"),
    "an unknown version of YAML": ("%YAML 9.9\n---\n" + GOOD, "not YAML"),
    "a version of 5,000 digits": (f"%YAML 1.{'9' * 5000}\n---\n" + GOOD, "not YAML"),
    "a tag that does not fit": (GOOD + "train: {epochs: !!int x}\n", "not YAML"),
    "a date that is none": (GOOD + "train: {epochs: !!timestamp x}\n", "not YAML"),
    "a mapping that is a list": (GOOD + "train: !!map [1]\n", "not YAML"),
    "a tag of Python": (GOOD + "train: !!python/object/apply:os.system [true]\n", "not YAML"),
    "a key that is a list": ("? [a]\n: 1\n", "not YAML"),
    "5,000 digits": (GOOD + f"images: {{size: {'9' * 5000}}}\n", "not YAML: Exceeds the limit"),
    "5,000 hexadecimal digits": (GOOD + f"publish: {{version: 0x{'f' * 5000}}}\n", "number of thousands of digits"),
    "deep nesting": (GOOD + f"train: {'[' * 20_000}\n", "nested too deeply"),
    "an alias bomb": (f"a0: &a0 [x]\n{BOMB}{GOOD}", "more than 100,000 keys and values"),
    "100,000 values without an alias": (GOOD + f"images: {{size: [{'1, ' * 100_000}]}}\n", "larger than 131,072 bytes"),
    "an alias of itself": ("a: &a [*a]\n", "inside what it repeats"),
    "2 MiB": ("#" * (2 << 20), "larger than 131,072 bytes"),
    "a long unknown key": (GOOD + f"{'k' * 1000}: 1\n", "unknown key 'kkk"),
    "a long value": (GOOD + f"images: {{size: {'x' * 100_000}}}\n", "'images.size'"),
    "a long list": (GOOD + f"images: {{size: [{'1, ' * 10_000}]}}\n", "found list of 10,000"),
    "a long kind": (f"datasets: [s]\nsources: {{s: {{kind: {'x' * 100_000}}}}}\n", "'sources.s.kind'"),
    "a kind that is a list": ("datasets: [s]\nsources: {s: {kind: [a]}}\n", "'sources.s.kind'"),
    "an escape of the terminal": (GOOD + 'images: {size: "\\e[2J"}\n', "'images.size'"),
    "a bad version": (GOOD + "publish: {version: 1.0}\n", "'publish.version'"),
    "a version of other digits": (GOOD + "publish: {version: ١.٢.٣}\n", "'publish.version'"),
    "a version too long for a path": (GOOD + f"publish: {{version: {'9' * 999}.0.0}}\n", "'publish.version'"),
    "no address": ("datasets: [s]\nsources: {s: {kind: tabular, interactions: 'http://['}}\n", "not a valid address"),
    "no port": ("datasets: [s]\nsources: {s: {kind: tabular, interactions: 'http://h:99999/x'}}\n", "valid address"),
    "a mirror that is no address": (GOOD + "images: {mirrors: {h: 'http://['}}\n", "'images.mirrors.h'"),
}


@pytest.mark.parametrize(("content", "error"), TABLE.values(), ids=TABLE)
def test_a_hostile_parameter_file_is_refused_in_one_line(tmp_path: Path, content: str | bytes, error: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        params.read(path)
    assert time.process_time() - start < 5
    message = str(caught.value).removeprefix(str(path))
    assert error in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
def test_aliases_that_mean_well_are_read(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(mark + GOOD.encode() + b"benchmark: {ks: &ks [5, 20]}\nprobe: {ks: *ks}\n")
    assert params.read(path).probe.ks == [5, 20]
