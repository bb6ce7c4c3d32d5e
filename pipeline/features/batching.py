"""Encode items in batches of equal modalities and similar text length: n items, F feature width."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import Encoder
from alignrec.pipeline.features.folder import feature_rows
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.process import keep_large_buffers, ran_out

HALVED = (
    "memory ran out, so items were encoded in half a batch, which changes their vectors by rounding"
)


@dataclass(frozen=True)
class Items:
    """Columns of a dataset's or table's items that encoders read."""

    ids: pa.Table  # item_id and asin
    texts: io.Texts
    images: Sequence[Path]  # images-*.parquet

    @classmethod
    def of(cls, layout: Layout) -> Self:
        ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
        return cls(ids, io.Texts(layout.items), sorted(layout.images.glob("images-*.parquet")))

    def read(self, rows: range, reads: Sequence[str]) -> pa.Table:
        """Return `item_id` and `asin` of consecutive items, with `text` and `image` if listed in `reads`."""
        content = self.ids.slice(rows.start, len(rows)).select(["item_id", "asin"])
        if "text" in reads:
            content = content.append_column("text", self.texts.slice(rows.start, len(rows)))
        if "image" in reads and self.images:
            # all shards but the last are equally long, so only the first is opened
            size, chunks = io.rows(self.images[:1]), list[pa.Array]()
            for number in range(rows.start // size, -(-rows.stop // size)) if size else ():
                (path,) = io.present([io.shard(self.images[0].parent, "images", number)])
                first, last = (
                    max(rows.start - number * size, 0),
                    min(rows.stop - number * size, size),
                )
                column = io.read_table(path, schemas.IMAGES, ["image"])["image"]
                chunks += column.slice(first, last - first).chunks
            content = content.append_column(
                "image", pa.chunked_array(chunks, schemas.IMAGES.field("image").type)
            )
        return content


class Cells(Sequence[Any]):
    """Column whose cells are copied one per access, as all images would fill memory."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[int(row)].as_py()


def texts_and_images(content: pa.Table) -> tuple[list[str], Sequence[bytes | None]]:
    """Return the texts ("" if absent) and JPEGs (None if absent) of a table from `Items.read`."""
    names = content.column_names
    texts = content["text"].to_pylist() if "text" in names else [""] * len(content)
    return texts, Cells(content["image"]) if "image" in names else [None] * len(content)


class Encoded(NamedTuple):
    """Vectors of n items, and what they were encoded from."""

    vectors: np.ndarray  # float32 [n, F]; zeros without image and text
    has_image: np.ndarray  # bool [n], an image was used
    has_text: np.ndarray  # bool [n], a text was used
    halved: np.ndarray  # bool [n], encoded in half a batch because memory ran out
    reading: Reading | None = None  # token counts; None if the encoder does not count tokens


def encode_items(
    encoder: Encoder,
    texts: Sequence[str],  # "" for items without text
    images: Sequence[bytes | None],  # JPEG files; None for items without image
    batch_size: int,
    done: Callable[[int], object] = int,  # called with the number of items of each batch
    workers: int = 1,
) -> Encoded:
    """Encode items; raises UserError if a vector is not finite or half a batch does not fit in memory."""
    keep_large_buffers()
    texts = [
        text.encode(errors="replace").decode() for text in texts
    ]  # tokenizers reject lone surrogates
    has_text = np.array([bool(text.strip()) for text in texts], bool)
    has_image = np.array([image is not None for image in images], bool)
    lengths, reading = np.zeros(len(texts), np.int64), None
    if has_text.any():
        given = [text for text in texts if text.strip()]
        count = getattr(encoder, "reading", None)
        reading = count(given) if count else None
        lengths[has_text] = [len(text) for text in given] if reading is None else reading.read

    def prepare(rows: np.ndarray) -> Any:
        some_images = [image for i in rows if (image := images[i]) is not None]
        return encoder.prepare(
            some_images or None, [text for i in rows if (text := texts[i]).strip()] or None
        )

    # Larger matrix products may sum in another order, so batch sizes change vectors in their last bits: about 1e-6
    # relative in float32, 1e-3 in bfloat16. With fixed sizes, any number of workers gives the same bytes.
    plan = plan_batches(has_image, has_text, lengths, batch_size)
    prepared = engine.run_jobs(lambda: prepare, plan, engine.Threads(workers), ahead=1)
    out, halved = _encode_batches(encoder, len(texts), prepared, prepare, done)
    done(int((~has_image & ~has_text).sum()))
    return Encoded(out, has_image, has_text, halved, reading)


def encode_rows(
    encoder: Encoder, content: pa.Table, own: Encode, done: Callable[[int], object] = int
) -> pa.Table:
    """Encode a table from `Items.read`: schema features(F), `halved`, and `read` and `there` (null without text)."""
    made = encode_items(encoder, *texts_and_images(content), own.batch_size, done, own.workers)
    rows = feature_rows(content, made.vectors, made.has_image, made.has_text)
    for name, numbers in made.reading._asdict().items() if made.reading else ():
        of_all = np.zeros(len(rows), np.int64)
        of_all[made.has_text] = numbers
        rows = rows.append_column(name, pa.array(of_all, mask=~made.has_text))
    return rows.append_column("halved", pa.array(made.halved))


def _encode_batches(
    encoder: Encoder,
    items: int,
    batches: Iterable[tuple[np.ndarray, Any]],
    prepare: Callable[[np.ndarray], Any],
    done: Callable[[int], object],
) -> tuple[np.ndarray, np.ndarray]:
    out, halved = np.zeros((items, encoder.width), np.float32), np.zeros(items, bool)
    previous: tuple[np.ndarray, Tensor] | None = None
    for rows, prepared in batches:
        if (vectors := _try_encode(encoder, prepared)) is None:
            halved[rows] = True
            vectors = _in_halves(encoder, prepare, rows)
        # copy a batch only after the next has started, so that the GPU does not idle
        if previous is not None:
            out[previous[0]] = previous[1].cpu().numpy()
        previous = rows, vectors
        done(len(rows))
    if previous is not None:
        out[previous[0]] = previous[1].cpu().numpy()
    if not np.isfinite(out).all():
        row = int((~np.isfinite(out).all(axis=1)).argmax())
        raise UserError(
            f"row {row}: the encoder's vector is not finite; check its weights, or take another encoder"
        )
    return out, halved


def _try_encode(encoder: Encoder, prepared: Any) -> Tensor | None:
    try:
        return encoder.encode(prepared)
    except (RuntimeError, MemoryError) as e:
        if not ran_out(e):
            raise
    return None  # the caller tries half a batch


def _in_halves(encoder: Encoder, prepare: Callable[[np.ndarray], Any], rows: np.ndarray) -> Tensor:
    halves = np.array_split(rows, 2) if len(rows) > 1 else []
    found = [
        vectors for half in halves if (vectors := _try_encode(encoder, prepare(half))) is not None
    ]
    if len(found) == 2:
        return torch.cat(found)
    if len(rows) > 2:
        raise UserError(
            f"memory ran out in half a batch of {len(rows):,} too; lower batch_size, or give more memory"
        )
    raise UserError(
        "memory ran out with one item per forward pass; take a smaller network, or give more memory"
    )


def plan_batches(
    has_image: np.ndarray, has_text: np.ndarray, lengths: np.ndarray, size: int
) -> Iterator[np.ndarray]:
    """Yield row numbers, int64, by modality and similar length; rows without content are skipped."""
    kind = 2 * has_image.astype(np.int64) + has_text
    order = np.lexsort((np.arange(len(kind)), lengths, kind))
    for k in (1, 2, 3):
        rows = order[kind[order] == k]
        yield from (rows[start : start + size] for start in range(0, len(rows), size))
