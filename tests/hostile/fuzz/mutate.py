"""Mutated inputs, determined by the target's name and a number."""

import random
from collections.abc import Sequence

from alignrec.pipeline.runtime.seeds import seed_for

LONGEST = 1 << 20
"""bytes of an input; size limits of parsers are tested by the tables"""
TOKENS = [
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[2J", b"\n", b"\r\n", b"\t", b","),
    *(b'"', b"'", b"[", b"{", b"(", b"]", b"}", b"<", b">", b"&", b"&#9999999999;", b":", b"//", b"http://[", b"@"),
    *(b"%00", b"..", b"/", b"-1", b"0", b"1e39", b"nan", b"inf", b"2147483648", b"9223372036854775808", b"9" * 40),
    *(b"1.5", b"true", b"null", b"\xd9\xa3", b"\xc2\xb2", b"\xcc\x81", b"\xe2\x80\xae", b"\\u0000", b"\\ud800"),
    *(b"!!int ", b"&a ", b"*a", b"xn--", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"),
    *(b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\0" * 8),
]

EDITS = {"flip": 4, "replace": 4, "insert": 4, "overwrite": 3, "delete": 2, "cut": 1, "repeat": 1, "splice": 1}
"""kind -> weight"""


def _edit(data: bytearray, kind: str, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at, length = rng.randint(0, len(data)), 1 + int(rng.expovariate(1 / 16))
    token, other = rng.choice(TOKENS), rng.choice(seeds)
    match kind:
        case "flip":
            data[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])
        case "replace":
            data[at : at + 1] = rng.randbytes(1)
        case "insert":
            data[at:at] = token
        case "overwrite":
            data[at : at + len(token)] = token
        case "delete":
            del data[at : at + length]
        case "cut":
            del data[at:]
        case "repeat":
            part = bytes(data[at : at + length])
            data[at:at] = part * min(rng.choice((1, 2, 10, 1000, 10_000)), (1 << 16) // (len(part) or 1))
        case "splice":
            data[at:] = other[rng.randint(0, len(other)) :]


def mutated(name: str, number: int, seeds: Sequence[bytes]) -> bytes:
    """Return input `number` of a target: first the seeds, then seeds after 1 to 8 edits."""
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(seed_for("fuzz", name, number))
    data = bytearray(rng.choice(seeds))
    for kind in rng.choices([*EDITS], [*EDITS.values()], k=rng.randint(1, 8)):
        _edit(data, kind, rng, seeds)
    return bytes(data[:LONGEST])
