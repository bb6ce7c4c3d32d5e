"""Encode items in batches of equal modalities and similar text length: n items, F feature width."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import Encoder
from alignrec.pipeline.features.folder import feature_rows
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout
from alignrec.pipeline.runtime.process import keep_large_buffers, ran_out


@dataclass(frozen=True)
class ItemContent:
    """Columns of a dataset's or table's items that encoders read."""

    ids: pa.Table  # item_id and asin
    texts: io.Texts
    images: Sequence[Path]  # images-*.parquet, or further-*.parquet
    stem: str = "features"  # of the files that their vectors go to

    @classmethod
    def of(cls, layout: Layout) -> Self:
        ids = io.read_table(layout.item_ids, schemas.ITEM_IDS)
        return cls(ids, io.Texts(layout.items), sorted(layout.images.glob("images-*.parquet")))

    @classmethod
    def further(cls, layout: Layout) -> Self | None:
        """Return the items outside the k-core, see `items.all`; None without any."""
        path = layout.further_items
        if not path.is_file():
            return None
        ids = io.read_table(path, schemas.ITEMS, schemas.ITEM_IDS.names)
        images = sorted(layout.images.glob(f"{FURTHER_STEM}-*.parquet"))
        return cls(ids, io.Texts(path), images, FURTHER_STEM)

    def files(self) -> list[Path]:
        return [self.texts.path, *self.images]

    def read(self, rows: range, reads: Sequence[str]) -> pa.Table:
        """Return `item_id` and `asin` of consecutive items, `text` and `image` if in `reads`."""
        content = self.ids.slice(rows.start, len(rows)).select(["item_id", "asin"])
        if "text" in reads:
            content = content.append_column("text", self.texts.slice(rows.start, len(rows)))
        if "image" in reads and self.images:
            content = content.append_column("image", self._read_images(rows))
        return content

    def _read_images(self, rows: range) -> pa.ChunkedArray:
        chunks: list[pa.Array] = []
        for path, part in self._shards(rows):
            column = io.read_table(path, schemas.IMAGES, ["image"])["image"]
            chunks += column.slice(part.start, len(part)).chunks
        return pa.chunked_array(chunks, schemas.IMAGES.field("image").type)

    def _shards(self, rows: range) -> Iterator[tuple[Path, range]]:
        """Yield the files of images of consecutive items, and which of their rows these are."""
        # all shards but the last are equally long, so only the first is opened
        shard_rows = io.rows(self.images[:1])
        shards = range(rows.start // shard_rows, -(-rows.stop // shard_rows)) if shard_rows else ()
        for number in shards:
            stem = self.images[0].name.rpartition("-")[0]
            (path,) = io.present([io.shard(self.images[0].parent, stem, number)])
            start = max(rows.start - number * shard_rows, 0)
            stop = min(rows.stop - number * shard_rows, shard_rows)
            yield path, range(start, stop)


class Cells(Sequence[Any]):
    """Column whose cells are copied one per access, as all images would fill memory."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[int(row)].as_py()


def texts_and_images(content: pa.Table) -> tuple[list[str], Sequence[bytes | None]]:
    """Return the texts ("" if absent) and JPEGs (None if absent) that `ItemContent.read` read."""
    texts = [""] * len(content)
    images: Sequence[bytes | None] = [None] * len(content)
    if "text" in content.column_names:
        texts = content["text"].to_pylist()
    if "image" in content.column_names:
        images = Cells(content["image"])
    return texts, images


class Encoded(NamedTuple):
    """Vectors of n items, and what they were encoded from."""

    vectors: np.ndarray  # float32 [n, F]; zeros without image and text
    has_image: np.ndarray  # bool [n], an image was used
    has_text: np.ndarray  # bool [n], a text was used
    reading: Reading | None = None  # token counts; None if the encoder does not count tokens


def encode_items(
    encoder: Encoder,
    texts: Sequence[str],  # "" for items without text
    images: Sequence[bytes | None],  # JPEG files; None for items without image
    batch_size: int,
    done: Callable[[int], object] = int,  # called with the number of items of each batch
    workers: int = 1,
) -> Encoded:
    """Encode items; UserError if a vector is not finite or a batch does not fit in memory."""
    keep_large_buffers()
    # tokenizers reject lone surrogates
    texts = [text.encode(errors="replace").decode() for text in texts]
    has_text = np.array([bool(text.strip()) for text in texts], bool)
    has_image = np.array([image is not None for image in images], bool)

    lengths = np.zeros(len(texts), np.int64)
    reading: Reading | None = None
    if has_text.any():
        written = [text for text in texts if text.strip()]
        if hasattr(encoder, "reading"):
            reading = encoder.reading(written)
        lengths[has_text] = list(map(len, written)) if reading is None else reading.read

    def prepare(rows: np.ndarray) -> Any:
        batch_images = []
        for row in rows:
            image = images[row]  # read once, as it is copied
            if image is not None:
                batch_images.append(image)
        batch_texts = [texts[row] for row in rows if has_text[row]]
        return encoder.prepare(batch_images or None, batch_texts or None)

    # Larger matrix products may sum in another order, so batch sizes change vectors in their last
    # bits: about 1e-6 relative in float32, 1e-3 in bfloat16. With fixed sizes, any number of
    # workers gives the same bytes.
    plan = plan_batches(has_image, has_text, lengths, batch_size)
    prepared = engine.run_jobs(lambda: prepare, plan, engine.Threads(workers), ahead=1)
    vectors = _encode_batches(encoder, len(texts), prepared, done)
    done(int((~has_image & ~has_text).sum()))
    return Encoded(vectors, has_image, has_text, reading)


def encode_rows(
    encoder: Encoder, content: pa.Table, settings: Encode, done: Callable[[int], object] = int
) -> pa.Table:
    """Encode a table of `ItemContent.read`: schema features(F), columns of `Reading`.

    The latter are null for items without text, and absent if the encoder does not count tokens.
    """
    texts, images = texts_and_images(content)
    encoded = encode_items(encoder, texts, images, settings.batch_size, done, settings.workers)
    rows = feature_rows(content, encoded.vectors, encoded.has_image, encoded.has_text)

    counts = encoded.reading._asdict() if encoded.reading else {}
    for name, count in counts.items():
        column = np.zeros(len(rows), np.int64)
        column[encoded.has_text] = count
        rows = rows.append_column(name, pa.array(column, mask=~encoded.has_text))
    return rows


def _encode_batches(
    encoder: Encoder,
    n_items: int,
    batches: Iterable[tuple[np.ndarray, Any]],
    done: Callable[[int], object],
) -> np.ndarray:
    vectors = np.zeros((n_items, encoder.width), np.float32)
    pending: tuple[np.ndarray, Tensor] | None = None
    for rows, prepared in batches:
        batch_vectors = _encode_batch(encoder, prepared, len(rows))
        # copy a batch only after the next has started, so that the GPU does not idle
        if pending is not None:
            vectors[pending[0]] = pending[1].cpu().numpy()
        pending = (rows, batch_vectors)
        done(len(rows))
    if pending is not None:
        vectors[pending[0]] = pending[1].cpu().numpy()

    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors).all(axis=1)).argmax())
        raise UserError(
            f"row {row}: the encoder's vector is not finite; "
            "check its weights, or take another encoder"
        )
    return vectors


def _encode_batch(encoder: Encoder, prepared: Any, n_items: int) -> Tensor:
    try:
        return encoder.encode(prepared)
    except (RuntimeError, MemoryError) as e:
        if not ran_out(e):
            raise
    if n_items == 1:
        raise UserError(
            "memory ran out with one item per forward pass; take a smaller network, "
            "or give more memory"
        )
    raise UserError(
        f"memory ran out in a batch of {n_items:,}; lower batch_size, or give more memory"
    )


def plan_batches(
    has_image: np.ndarray, has_text: np.ndarray, lengths: np.ndarray, size: int
) -> Iterator[np.ndarray]:
    """Yield row numbers, int64, by modality and similar length, but of rows without content."""
    modalities = 2 * has_image.astype(np.int64) + has_text
    order = np.lexsort((np.arange(len(modalities)), lengths, modalities))
    for code in (1, 2, 3):
        rows = order[modalities[order] == code]
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
