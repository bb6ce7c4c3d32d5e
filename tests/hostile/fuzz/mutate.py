"""New inputs from old ones; which, follows from the target's name and a number."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pipeline.seeds import seed_for

LONGEST = 1 << 20
"""bytes of an input; size itself is tested by the tables, with the limits of each parser"""
TOKENS = [
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[2J", b"\n", b"\r\n", b"\t", b","),
    *(b'"', b"'", b"[", b"{", b"(", b"]", b"}", b"<", b">", b"&", b"&#9999999999;", b":", b"//", b"http://[", b"@"),
    *(b"%00", b"..", b"/", b"-1", b"0", b"1e39", b"nan", b"inf", b"2147483648", b"9223372036854775808", b"9" * 40),
    *(b"1.5", b"true", b"null", b"\xd9\xa3", b"\xc2\xb2", b"\xcc\x81", b"\xe2\x80\xae", b"\\u0000", b"\\ud800"),
    *(b"!!int ", b"&a ", b"*a", b"xn--", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"),
    *(b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\0" * 8),
]

Edit = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def _flip(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _insert(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(TOKENS)


def _overwrite(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    token, at = rng.choice(TOKENS), rng.randint(0, len(data))
    data[at : at + len(token)] = token


def _delete(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    del data[at : at + 1 + int(rng.expovariate(1 / 16))]


def _cut(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _repeat(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    part = bytes(data[at : at + 1 + int(rng.expovariate(1 / 16))])
    data[at:at] = part * min(rng.choice((1, 2, 10, 1000, 10_000)), (1 << 16) // (len(part) or 1))


def _splice(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


EDITS: list[Edit] = [_flip, _replace, _insert, _overwrite, _delete, _cut, _repeat, _splice]
WEIGHTS = [4, 4, 4, 3, 2, 1, 1, 1]


def mutated(name: str, number: int, seeds: Sequence[bytes]) -> bytes:
    """Return input `number` of a target: the seeds as they are, then one of them after 1 to 8 edits."""
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(seed_for("fuzz", name, number))
    data = bytearray(rng.choice(seeds))
    for edit in rng.choices(EDITS, WEIGHTS, k=rng.randint(1, 8)):
        edit(data, rng, seeds)
    return bytes(data[:LONGEST])
