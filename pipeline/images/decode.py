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

Image.init()  # registers all formats; FORMATS are allowed
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # raster formats only: none can contain a script
SMALLEST = 8  # pixels, shorter side
# maximum scans of a progressive JPEG with max_pixels; bounds time, as each passes over all pixels; encoders write ten
SCANS = 12
START_OF_SCAN = b"\xff\xda"
LARGE = (
    1 << 24
)  # pixels above which squares are averaged first; otherwise 100 million pixels take 1.5 GiB
BAND = 1 << 22  # pixels of a large image converted at a time
# JPEGs are decoded at no less than this many target sides: bounds memory, leaves images below 8 sides unchanged
DRAFT = 4
HALF = (0.5, 0.5, 0.5)  # mean and sd, scales to [-1, 1] as in BEiT3
warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # about odd metadata, and about sizes, which are checked here

# rows of the 32-point DCT-II for the 8 lowest frequencies
_DCT = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])


class Decoded(NamedTuple):
    """Outcome of decoding; `image` is set if `status` is ok."""

    status: str  # one of schemas.IMAGE_STATUSES
    reason: str
    image: bytes | None = None  # JPEG, RGB
    width: int = 0  # pixels
    height: int = 0
    sha256: str = ""  # hex, of the original bytes
    phash: int | None = None  # 64 bit
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
    """Decode, rotate by EXIF, flatten onto white, shrink to a shorter side of `size` pixels, and encode as JPEG."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(memory.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                return Decoded("too_large", f"{width} x {height} pixels", sha256=digest)
            if width * height == 1:
                return Decoded("placeholder", "1 x 1 pixel", sha256=digest)
            if min(width, height) < SMALLEST:
                return Decoded("too_small", f"{width} x {height} pixels", sha256=digest)
            scans = data.count(START_OF_SCAN) if data.startswith(b"\xff\xd8") else 1
            if scans > SCANS and width * height * scans > SCANS * max_pixels:
                return Decoded(
                    "too_large", f"{width} x {height} pixels in {scans} scans", sha256=digest
                )
            with semaphore.acquire(width * height) if semaphore else nullcontext():
                image = _decode_jpeg(opened, data, size) or _decode_other(opened, size)
            image.info = opened.info  # `exif_transpose` reads the rotation from it
            with suppress(Exception):  # damaged EXIF may raise anything, but does not affect pixels
                ImageOps.exif_transpose(image, in_place=True)
            image.info = {}  # otherwise metadata would be written to the JPEG
        out = memory.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Decoded(
            "ok", "", out.getvalue(), image.width, image.height, digest, perceptual_hash(image)
        )
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
        cut = "truncated" in str(e).lower() or isinstance(e, EOFError)
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        return Decoded("truncated" if cut else "not_an_image", reason, sha256=digest)


def _decode_jpeg(opened: Image.Image, data: bytes, size: int) -> Image.Image | None:
    """Decode and shrink with libjpeg-turbo (a third faster); None if Pillow has to decode the image."""
    if opened.format != "JPEG" or opened.mode not in ("RGB", "L"):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != opened.size:
            return None
        share = max(1 / 8, min(1, 0.5 ** math.floor(math.log2(min(height, width) / size))))
        least = math.ceil(height * share), math.ceil(width * share)
        decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:
        return None
    return _shrink_to(decoded, (height * share, width * share), size)


def _decode_other(image: Image.Image, size: int) -> Image.Image:
    drafted = image.draft("RGB", (size, size))  # decodes a JPEG at 1/2, 1/4 or 1/8 of its size
    width, height = drafted[1][2:] if drafted else image.size
    factor = min(image.size) // (2 * size)
    if factor <= 1 or width * height <= LARGE:
        return _shrink_to(np.array(_flatten_to_rgb(image)), (height, width), size)
    extent = height / factor, width / factor
    # average squares first, a band at a time, which bounds memory
    width, height = image.size
    averaged = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    rows = max(1, BAND // (width * factor)) * factor
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        averaged.paste(_flatten_to_rgb(band).reduce(factor), (0, top // factor))
    return _shrink_to(np.array(averaged), extent, size)


def _flatten_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit: Pillow would clip values above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert always copies


def _shrink_to(pixels: np.ndarray, extent: tuple[float, float], size: int) -> Image.Image:
    """Shrink the area `extent` (height, width) of uint8 [height, width, 3] to a shorter side of `size`."""
    scale = size / min(extent)
    if scale >= 1:
        return Image.fromarray(pixels)
    # Pass the exact scale, as a scaled JPEG side may be fractional: 507 pixels at a half fill 253.5 of 254, and scaling
    # by 254 would shift the content. torch rounds the output sides down, hence the epsilon. Bicubic with antialiasing
    # takes a third of Pillow's time.
    scales = [(round(side * scale) / side) * (1 + 1e-9) for side in extent]
    nchw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = nnf.interpolate(
        nchw, scale_factor=scales, mode="bicubic", antialias=True, align_corners=False
    )
    return Image.fromarray(shrunk[0].permute(1, 2, 0).contiguous().numpy())


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64-bit DCT hash: which of the 8 x 8 lowest frequencies exceed their median."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = (_DCT @ grey @ _DCT.T).ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


def decode_rgb(image: bytes, side: int) -> Image.Image:
    """Decode a stored image at `side` or more pixels, keeping its aspect ratio; raise OSError if it is damaged."""
    with Image.open(memory.BytesIO(image)) as opened:
        opened.draft("RGB", (DRAFT * side, DRAFT * side))  # scaled decoding of large JPEGs
        return opened.convert("RGB")


def decode_squares(images: Sequence[bytes], side: int) -> np.ndarray:
    """Decode stored images and resize them to squares, bicubic: uint8 [B, side, side, 3]."""
    resized = (
        decode_rgb(image, side).resize((side, side), Image.Resampling.BICUBIC) for image in images
    )
    return np.stack([np.asarray(image) for image in resized])


def normalise_pixels(
    pixels: np.ndarray | Tensor, mean: Sequence[float] = HALF, sd: Sequence[float] = HALF
) -> Tensor:
    """Return (x / 255 - mean) / sd of uint8 [B, S, S, 3]: float32 [B, 3, S, S], on the pixels' device."""
    x = torch.as_tensor(np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels)
    x = x.permute(0, 3, 1, 2).float().div(255)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(sd).view(3, 1, 1)


def decode_all(images: Path, side: int, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode all stored images into `cache`; return rows int64 [I], -1 for none, and mapped uint8 [n, S, S, 3]."""
    paths = io.shards(images, "images")
    status = [
        io.read_table(p, schemas.IMAGES, ["status"])["status"].to_numpy(zero_copy_only=False)
        for p in paths
    ]
    has = np.concatenate(status) == "ok"
    row = np.where(has, np.cumsum(has) - 1, -1)
    if not cache.is_file():
        shape = (int(has.sum()), side, side, 3)
        if not shape[0]:
            return row, np.empty(shape, np.uint8)
        with io.atomic(cache) as temporary:
            io.require_space(cache.parent, math.prod(shape))
            array = open_memmap(temporary, "w+", np.uint8, shape)
            number = 0
            for path in paths:  # a shard at a time bounds memory
                for image in io.read_table(path, schemas.IMAGES, ["image"])["image"]:
                    if image.is_valid:
                        array[number] = decode_squares([image.as_py()], side)[0]
                        number += 1
            array.flush()
    return row, np.load(cache, mmap_mode="r", allow_pickle=False)
