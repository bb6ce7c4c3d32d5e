"""Read the sizes of the pages of Parquet files, which pyarrow allocates, from the pages' headers.

The headers are structs of Thrift's compact protocol, PageHeader in parquet.thrift.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

MAX_HEADER_BYTES = 1 << 16  # statistics of a page are at most 4 KiB
UNCOMPRESSED, COMPRESSED = 2, 3  # fields of the sizes
FALSE, TRUE, BYTE, DOUBLE, BINARY, STRUCT = 1, 2, 3, 7, 8, 12  # kinds of fields
INTEGERS = (4, 5, 6)


def text_bytes(path: Path) -> int:
    """Return the bytes of all pages of texts, unpacked.

    Raises ValueError for a header that cannot be read.
    """
    metadata = pq.read_metadata(path)
    total = 0
    with path.open("rb") as file:
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                if column.physical_type == "BYTE_ARRAY":
                    total += sum(_page_sizes(file, column))
    return total


def _page_sizes(file: BinaryIO, column: pq.ColumnChunkMetaData) -> Iterator[int]:
    position = column.data_page_offset
    if column.dictionary_page_offset:
        position = min(position, column.dictionary_page_offset)
    end = position + column.total_compressed_size
    while 0 < position < end:  # 0: there is no page
        file.seek(position)
        try:
            fields, length = _read_struct(file.read(MAX_HEADER_BYTES), 0)
            unpacked, packed = fields[UNCOMPRESSED], fields[COMPRESSED]
        except (IndexError, KeyError, RecursionError):
            raise ValueError(f"no header of a page at byte {position:,}") from None
        if min(unpacked, packed) < 0:
            raise ValueError(f"a page of negative size at byte {position:,}")
        yield unpacked
        position += length + packed


def _read_struct(data: bytes, position: int) -> tuple[dict[int, int], int]:
    """Return number -> value of the integers in a struct, and the position after it."""
    fields = {}
    number = 0
    while head := data[position]:
        position += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, position = _read_integer(data, position)

        if kind in INTEGERS:
            fields[number], position = _read_integer(data, position)
        elif kind == STRUCT:
            _, position = _read_struct(data, position)
        elif kind == BINARY:
            length, position = _read_varint(data, position)
            position += length
        elif kind in (FALSE, TRUE, BYTE, DOUBLE):
            position += {BYTE: 1, DOUBLE: 8}.get(kind, 0)
        else:
            raise KeyError(kind)
    return fields, position + 1


def _read_integer(data: bytes, position: int) -> tuple[int, int]:
    value, position = _read_varint(data, position)
    return (value >> 1) ^ -(value & 1), position


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 128:
        value |= (data[position] & 127) << shift
        position += 1
        shift += 7
    return value | data[position] << shift, position + 1
