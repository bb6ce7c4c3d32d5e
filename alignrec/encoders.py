"""Encode any images and texts: `alignrec.encoder`. N rows, F width."""

import io as bytes_io
import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from alignrec.pipeline import io
from alignrec.pipeline.encoders import registry
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.runtime.section import nearest, validate
from alignrec.releases import Release, load
from alignrec.vectors import require_positive

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | None"

BUNDLED = ("minilm", "cnn", "minilm-cnn")
DEFAULTS = Encode()
STORED = Images()
# PIL modes that PNG supports; others are converted to RGB
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class Reject(NamedTuple):
    """An image that could not be read. Its row is encoded from the text only, or zero without a
    text.
    """

    row: int
    """index of the item"""
    status: str
    """category, such as `missing`, `truncated`, `not_an_image` or `too_large`"""
    reason: str
    """error message"""


class Encoder:
    """An encoder of images and texts; create one with `alignrec.encoder`.

    Images are normalised as in the stage `images` and encoded as in the stage `encode` with default
    parameters: equal items in equal order give byte-identical vectors.

    Attributes:
        name: Name of the encoder.
        reads: Modalities that it encodes: `image`, `text` or both.
        width: Length F of its vectors.
        rejects: Images that the last call of `encode` could not read.
    """

    def __init__(
        self, name: str, network: registry.Encoder, reads: Sequence[str], images: Images = STORED
    ) -> None:
        """Wrap a loaded network that encodes the modalities `reads`; `images` sets how images are
        normalised.
        """
        self.name = name
        self.reads = tuple(reads)
        self.width = network.width
        self.rejects: list[Reject] = []
        self._network = network
        self._images = images

    def encode(
        self,
        images: Iterable[ImageLike] | None = None,
        texts: Iterable[str | None] | None = None,
        *,
        batch_size: int = DEFAULTS.batch_size,
        workers: int = DEFAULTS.workers,
    ) -> np.ndarray:
        """Encode N items, each with an image, a text or both.

        Images that cannot be read are listed in `rejects` and reported in one warning.

        Args:
            images: Path, bytes or PIL image of each item, or None for an item without an image.
            texts: Text of each item, or None or empty for an item without a text.
            batch_size: Items per forward pass. Another value may change the last bits of the
                vectors.
            workers: Threads that decode images and tokenise texts.

        Returns:
            Vectors, float32 [N, F], not normalised. Rows of items without any content for this
            encoder are zero.

        Raises:
            UserError: If there are no rows, `images` and `texts` differ in length, a row has the
                wrong type, or none
                of the images can be read.
        """
        require_positive(batch_size=[batch_size], workers=[workers])
        kinds = str | os.PathLike | bytes | Image.Image | None
        pictured = _checked_rows(images, "image", kinds, "a path, bytes, a PIL image")
        written = _checked_rows(texts, "text", str | None, "a string")
        contents = {"image": pictured, "text": written}
        if all(contents[modality] is None for modality in self.reads):
            modalities = " and ".join(f"{modality}s" for modality in self.reads)
            raise UserError(f"{self.name} reads {modalities}; none were given")
        if pictured is not None and written is not None and len(pictured) != len(written):
            raise UserError(
                f"{len(pictured)} images and {len(written)} texts; give None where one is absent"
            )
        n = len(pictured or written or ())
        if not n:
            raise UserError("no rows to encode; give at least one image or text")

        encoded_texts = written if written and "text" in self.reads else [None] * n
        encoded_images = pictured if pictured and "image" in self.reads else [None] * n
        # rows without content stay zero
        vectors = np.zeros((n, self.width), np.float32)
        self.rejects = []
        for start in range(0, n, DEFAULTS.shard_rows):  # blocks bound the images in memory
            block = slice(start, min(start + DEFAULTS.shard_rows, n))
            jpegs = self._decode_block(encoded_images[block], start, workers)
            texts_of_block = [text or "" for text in encoded_texts[block]]
            encoded = batching.encode_items(
                self._network, texts_of_block, jpegs, batch_size, workers=workers
            )
            vectors[block] = encoded.vectors

        if self.rejects:
            n_images = sum(image is not None for image in pictured or ())
            first = self.rejects[0]
            count = f"{len(self.rejects):,} of {n_images:,} images cannot be read"
            line = f"{count}, first row {first.row}: {first.reason}"
            if len(self.rejects) == n_images:
                raise UserError(f"{line}; give paths of image files, bytes or PIL images")
            warnings.warn(f"{line}; encoder.rejects has all", stacklevel=2)

        return vectors

    def _decode_block(
        self, images: list[ImageLike], start: int, workers: int
    ) -> list[bytes | None]:
        """Normalise the images of the rows from `start`; those that cannot be read are None and
        listed in `rejects`.
        """
        jpegs: list[bytes | None] = []
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(partial(decode, params=self._images), images))
        for row, result in enumerate(results, start):
            if isinstance(result, tuple):
                self.rejects.append(Reject(row, *result))
                jpegs.append(None)
            else:
                jpegs.append(result)

        return jpegs

    def __repr__(self) -> str:
        return f"<Encoder {self.name}: {' and '.join(self.reads)} -> {self.width} numbers>"


def encoder(name: str | Path | Release, encoder: str | None = None, **settings: Any) -> Encoder:
    """Load a bundled encoder, or one from a release.

    Args:
        name: `minilm`, `cnn`, `minilm-cnn` or an encoder that an installed package registers; or a
            release with
            encoders: a `Release`, its folder or its address.
        encoder: Name of the encoder in the release. Optional if the release has only one.
        **settings: Parameters of an encoder that is given by name, such as `max_tokens` of
            `minilm`; see its class in
            `pipeline/encoders/`.

    Returns:
        The loaded encoder.

    Raises:
        UserError: If the encoder or a setting is unknown, or the release cannot be loaded (see
            `load`).

    Examples:
        >>> encoder = alignrec.encoder("minilm-cnn")
        >>> vectors = encoder.encode(texts=["a ripe tomato", "a red ball"])
        >>> vectors.shape == (2, encoder.width)
        True
    """
    if isinstance(name, Release):
        return _load_released(name, encoder)
    if isinstance(name, Path) or "/" in name or Path(name).is_dir():
        return _load_released(load(name), encoder)
    registered = [kind for kind in registry.ENCODERS if kind not in registry.ENCODERS.built_in]
    ready = [*BUNDLED, *registered]
    if name not in ready:
        if name in registry.ENCODERS:
            raise UserError(
                f"encoder '{name}' needs weights of its own; name a release that carries it"
            )
        raise UserError(f"no encoder '{name}'{nearest(name, ready)}")
    spec = registry.ENCODERS[name]
    params = validate(spec.params, settings, f"encoder.{name}")
    network = spec.load(Path(), params)  # empty path: these encoders need no dataset
    return Encoder(name, network, spec.reads)


def _load_released(release: Release, name: str | None) -> Encoder:
    shelf = ReleasedEncoders(release.folder)
    names = shelf.names
    if not names:
        raise UserError(
            f"{release.folder}: this release carries no encoder; take one of {', '.join(BUNDLED)}"
        )
    if name is None and len(names) > 1:
        raise UserError(f"{release.folder}: name one of its encoders: {', '.join(names)}")
    loaded = shelf.load(name or names[0])
    stored = Images(size=loaded.facts.image_size, quality=loaded.facts.image_quality)
    return Encoder(name or names[0], loaded.encoder, loaded.facts.reads, stored)


def _checked_rows(values: Any, name: str, kinds: Any, expected: str) -> list[Any] | None:
    if values is None:
        return None
    is_single = isinstance(values, str | bytes | os.PathLike | Image.Image)
    if is_single or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise UserError(f"{name}s: {kind} is no list; give a list, one of the {name}s a row")

    rows = list(values.to_pylist() if hasattr(values, "to_pylist") else values)
    for row, value in enumerate(rows):
        if not isinstance(value, kinds):
            raise UserError(
                f"{name}s, row {row}: {type(value).__name__} is no {name}; give {expected} or None"
            )
    return rows


def decode(image: ImageLike, params: Images = STORED) -> bytes | tuple[str, str] | None:
    """Normalise an image to JPEG bytes; (status, reason) if it cannot be read, None without an
    image.
    """
    if image is None:
        return None
    try:
        data = _read_image(image, params.max_bytes)
    except UserError as e:
        return "missing", f"{e}; only local files are read"
    # PIL raises arbitrary exceptions for damaged images, which are decoded lazily
    except Exception as e:
        if isinstance(e, OSError) and e.strerror:
            return "missing", f"{e.filename}: {e.strerror}; only local files are read"
        status = "truncated" if "truncated" in str(e) else "not_an_image"
        return status, f"{type(e).__name__}: {' '.join(str(e).split())}"

    if len(data) > params.max_bytes:
        return "too_large", f"more than {params.max_bytes:,} bytes"
    normal = normalise_image(data, params.size, params.quality, params.max_pixels)
    return normal.image or (normal.status, f"{normal.status.replace('_', ' ')}, {normal.reason}")


def _read_image(image: str | os.PathLike[str] | bytes | Image.Image, max_bytes: int) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        buffer = bytes_io.BytesIO()
        supported = image if image.mode in PNG_MODES else image.convert("RGB")
        supported.save(buffer, "PNG", exif=image.getexif())  # EXIF contains the rotation
        return buffer.getvalue()

    # one byte more than allowed, to detect files that are too large
    with io.open_plain(Path(image)) as file:
        return file.read(max_bytes + 1)
