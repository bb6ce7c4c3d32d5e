"""TFRecord files of `tf.train.Example`, packed by gzip.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord; a record is its length, a masked CRC32C of that, the
message, and a masked CRC32C of it. The message is in protocol buffers' wire format.
"""

import gzip
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

Value = bytes | Iterable[int]
"""a text, or whole numbers from 0"""


def write(path: Path, rows: Iterable[Mapping[str, Value]]) -> None:
    """Write an example a row; equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for row in rows:
            message = example(row)
            length = struct.pack("<Q", len(message))
            packed.write(length + struct.pack("<I", masked(length)) + message + struct.pack("<I", masked(message)))


def example(row: Mapping[str, Value]) -> bytes:
    """Return the message of an example: a map from names to lists of bytes or of int64."""
    features = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(value))) for name, value in sorted(row.items())
    )
    return _field(1, features)


def masked(data: bytes) -> int:
    """Return the checksum of a record's part: CRC32C, rotated by 15 bits and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _feature(value: Value) -> bytes:
    if isinstance(value, bytes):
        return _field(1, _field(1, value))
    return _field(3, _field(1, b"".join(map(_varint, value))))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_entry(byte) for byte in range(256)]
"""of CRC32C, Castagnoli's polynomial"""
