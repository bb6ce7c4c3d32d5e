"""Decode images: untrusted bytes into normalised JPEGs, and stored JPEGs into network input."""

import hashlib
import io as memory
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as nnf
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.runtime.process import ran_out

Image.init()  # registers all formats; RASTER_FORMATS are allowed
RASTER_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # none can contain a script
MIN_IMAGE_SIDE_PIXELS = 8
# of a progressive JPEG with max_pixels; bounds time, as each passes over all pixels; encoders write
# ten
MAX_SCANS = 12
START_OF_IMAGE = b"\xff\xd8"
START_OF_SCAN = b"\xff\xda"
# above these, squares are averaged first; otherwise 100 million pixels take 1.5 GiB
MAX_PIXELS_UNAVERAGED = 1 << 24
PIXELS_PER_BAND = 1 << 22  # of a large image, converted at a time
# JPEGs are decoded at no less than this many target sides: bounds memory, leaves images below 8
# sides unchanged
MIN_TARGET_SIDES = 4
HALF = (0.5, 0.5, 0.5)  # mean and sd, scales to [-1, 1] as in BEiT3
# about odd metadata, and about sizes, which are checked here
warnings.filterwarnings("ignore", module=r"PIL\.")


class Decoded(NamedTuple):
    """Outcome of decoding; `image` is set if `status` is ok."""

    status: str  # one of schemas.IMAGE_STATUSES
    reason: str
    image: bytes | None = None  # JPEG, RGB
    width: int = 0  # pixels
    height: int = 0
    sha256: str = ""  # hex, of the original bytes
    url: str = ""  # the address that gave it, if it was fetched


class PixelSemaphore:
    """Bounds the pixels that all threads decode at once, and so memory."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def acquire(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


def normalise_image(
    data: bytes, size: int, quality: int, max_pixels: int, semaphore: PixelSemaphore | None = None
) -> Decoded:
    """Decode an image and encode it as JPEG with a shorter side of `size` pixels at most.

    It is rotated by EXIF and flattened onto white.
    """
    digest = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(memory.BytesIO(data), formats=RASTER_FORMATS) as opened:
            if fault := _find_fault(opened.size, data, max_pixels):
                status, reason = fault
                return Decoded(status, reason, sha256=digest)
            width, height = opened.size
            with semaphore.acquire(width * height) if semaphore else nullcontext():
                image = _decode_jpeg(opened, data, size) or _decode_other(opened, size)
            image.info = opened.info  # `exif_transpose` reads the rotation from it
            with suppress(Exception):  # damaged EXIF may raise anything, but does not affect pixels
                ImageOps.exif_transpose(image, in_place=True)
            image.info = {}  # otherwise metadata would be written to the JPEG

        out = memory.BytesIO()
        image.save(out, "JPEG", quality=quality)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        return Decoded("not_an_image", f"starts with {data[:8]!r}", sha256=digest)
    except Image.DecompressionBombError:
        return Decoded("too_large", "more pixels than any limit", sha256=digest)
    except (
        Exception
    ) as e:  # decoders raise all kinds of exceptions on damaged data; none may stop the run
        if ran_out(e):
            raise MemoryError from None
        is_cut = "truncated" in str(e).lower() or isinstance(e, EOFError)
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        return Decoded("truncated" if is_cut else "not_an_image", reason, sha256=digest)
    return Decoded("ok", "", out.getvalue(), image.width, image.height, digest)


def _find_fault(size: tuple[int, int], data: bytes, max_pixels: int) -> tuple[str, str] | None:
    """Return status and reason of an image that is not decoded, by its header."""
    width, height = size
    pixels = width * height
    dimensions = f"{width} x {height} pixels"
    if pixels > max_pixels:
        return "too_large", dimensions
    if pixels == 1:
        return "placeholder", "1 x 1 pixel"
    if min(width, height) < MIN_IMAGE_SIDE_PIXELS:
        return "too_small", dimensions

    scans = data.count(START_OF_SCAN) if data.startswith(START_OF_IMAGE) else 1
    if scans > MAX_SCANS and pixels * scans > MAX_SCANS * max_pixels:
        return "too_large", f"{dimensions} in {scans} scans"
    return None


def _decode_jpeg(opened: Image.Image, data: bytes, size: int) -> Image.Image | None:
    """Decode and shrink with libjpeg-turbo (a third faster).

    None if Pillow has to decode the image.
    """
    if opened.format != "JPEG" or opened.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != opened.size:
            return None
        halvings = math.floor(math.log2(min(height, width) / size))
        scale = max(1 / 8, min(1, 0.5**halvings))
        min_height = math.ceil(height * scale)
        min_width = math.ceil(width * scale)
        decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=min_height, min_width=min_width)
    except ValueError:
        return None
    return _shrink_to(decoded, (height * scale, width * scale), size)


def _decode_other(image: Image.Image, size: int) -> Image.Image:
    drafted = image.draft("RGB", (size, size))  # decodes a JPEG at 1/2, 1/4 or 1/8 of its size
    width, height = drafted[1][2:] if drafted else image.size
    factor = min(image.size) // (2 * size)
    if factor <= 1 or width * height <= MAX_PIXELS_UNAVERAGED:
        return _shrink_to(np.array(_flatten_to_rgb(image)), (height, width), size)
    averaged = _average_squares(image, factor)
    return _shrink_to(np.array(averaged), (height / factor, width / factor), size)


def _average_squares(image: Image.Image, factor: int) -> Image.Image:
    """Return the means of squares of factor x factor pixels, a band at a time to bound memory."""
    width, height = image.size
    averaged = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    rows = max(1, PIXELS_PER_BAND // (width * factor)) * factor
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        averaged.paste(_flatten_to_rgb(band).reduce(factor), (0, top // factor))
    return averaged


def _flatten_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit: Pillow would clip values above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert always copies


def _shrink_to(pixels: np.ndarray, extent: tuple[float, float], size: int) -> Image.Image:
    """Shrink the area `extent` (height, width) of uint8 [height, width, 3].

    Its shorter side becomes `size` pixels, unless it is smaller.
    """
    scale = size / min(extent)
    if scale >= 1:
        return Image.fromarray(pixels)
    # Pass the exact scale, as a scaled JPEG side may be fractional: 507 pixels at a half fill 253.5
    # of 254, and scaling by 254 would shift the content. torch rounds the output sides down, hence
    # the epsilon. Bicubic with antialiasing takes a third of Pillow's time.
    scales = [(round(side * scale) / side) * (1 + 1e-9) for side in extent]
    nchw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = nnf.interpolate(
        nchw, scale_factor=scales, mode="bicubic", antialias=True, align_corners=False
    )
    return Image.fromarray(shrunk[0].permute(1, 2, 0).contiguous().numpy())


def decode_rgb(image: bytes, side: int) -> Image.Image:
    """Decode a stored image at `side` or more pixels, keeping its aspect ratio.

    Raise OSError if it is damaged.
    """
    with Image.open(memory.BytesIO(image)) as opened:
        # scaled decoding of large JPEGs
        opened.draft("RGB", (MIN_TARGET_SIDES * side, MIN_TARGET_SIDES * side))
        return opened.convert("RGB")


def decode_squares(images: Sequence[bytes], side: int) -> np.ndarray:
    """Decode stored images and resize them to squares, bicubic: uint8 [B, side, side, 3]."""
    squares = []
    for image in images:
        square = decode_rgb(image, side).resize((side, side), Image.Resampling.BICUBIC)
        squares.append(np.asarray(square))
    return np.stack(squares)


def normalise_pixels(
    pixels: np.ndarray | Tensor, mean: Sequence[float] = HALF, sd: Sequence[float] = HALF
) -> Tensor:
    """Return (x / 255 - mean) / sd of uint8 [B, S, S, 3]: float32 [B, 3, S, S], on its device."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.as_tensor(np.ascontiguousarray(pixels))
    x = pixels.permute(0, 3, 1, 2).float().div(255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(sd).view(3, 1, 1)


def decode_all(images: Path, side: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode all stored images into `cache`.

    Return rows int64 [I], -1 for none, and mapped uint8 [n, S, S, 3].
    """
    paths = io.shards(images, "images")
    has_image = np.concatenate([_has_image(path) for path in paths])
    row = np.where(has_image, np.cumsum(has_image) - 1, -1)
    shape = (int(has_image.sum()), side, side, 3)
    if not cache.is_file():
        if not shape[0]:
            return row, np.empty(shape, np.uint8)
        _write_squares(paths, shape, cache)
    return row, np.load(cache, mmap_mode="r", allow_pickle=False)


def _has_image(path: Path) -> np.ndarray:
    status = io.read_table(path, schemas.IMAGES, ["status"])["status"]
    return np.asarray(status.to_numpy(zero_copy_only=False) == "ok")


def _write_squares(paths: Sequence[Path], shape: tuple[int, ...], to: Path) -> None:
    with io.atomic(to) as temporary:
        io.require_space(to.parent, math.prod(shape))
        squares = open_memmap(temporary, "w+", np.uint8, shape)
        number = 0
        for path in paths:  # a shard at a time bounds memory
            for image in io.read_table(path, schemas.IMAGES, ["image"])["image"]:
                if image.is_valid:
                    squares[number] = decode_squares([image.as_py()], shape[1])[0]
                    number += 1
        squares.flush()
