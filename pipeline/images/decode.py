"""Untrusted bytes -> a normalised JPEG, or the reason why there is none."""

import hashlib
import io
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as nnf
from PIL import Image, ImageOps, UnidentifiedImageError

from alignrec.pipeline.harness.memory import ran_out

Image.init()  # registers every format, so that FORMATS can name some
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # raster formats that shops use; nothing that can hold a script
SMALLEST = 8  # pixels: shorter side of a real image
SCANS = 12  # of a progressive JPEG of as many pixels as any may have; encoders make about ten. Each is a pass over all
START_OF_SCAN = b"\xff\xda"
LARGE = 1 << 24  # pixels from which an image is averaged over squares first: without, 100 million take 1.5 GiB
BAND = 1 << 22  # pixels of a large image that are converted at a time
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, and of sizes that are checked here

# rows of the 32-point DCT-II for the 8 lowest frequencies
_DCT = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])


class Decoded(NamedTuple):
    """The outcome of decoding, with the normalised image if its status is ok."""

    status: str  # of schemas.IMAGE_STATUSES
    reason: str
    image: bytes | None = None  # JPEG, RGB
    width: int = 0  # pixels
    height: int = 0
    sha256: str = ""  # hex, of the bytes as fetched
    phash: int | None = None  # 64 bit


class PixelSemaphore:
    """Bounds the pixels that all threads decode at a time, and with them memory, however many cores there are."""

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
    """Decode, rotate as EXIF says, flatten onto white, shrink and encode as JPEG. Animations give their first frame.

    `size` is the shorter side after shrinking; smaller images keep theirs. `semaphore` is shared by threads. Time is
    at most that of SCANS passes over max_pixels; memory is about 8 bytes a pixel. MemoryError: not enough.
    """
    digest = hashlib.sha256(data).hexdigest()
    try:
        return _decode_and_shrink(data, digest, size, quality, max_pixels, semaphore)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        return Decoded("not_an_image", f"starts with {data[:8]!r}", sha256=digest)
    except Image.DecompressionBombError:
        return Decoded("too_large", "more pixels than any limit", sha256=digest)
    except Exception as e:  # decoders raise any exception on damaged data; none may stop the run
        if ran_out(e):
            raise MemoryError from None
        cut = "truncated" in str(e).lower() or isinstance(e, EOFError)
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        return Decoded("truncated" if cut else "not_an_image", reason, sha256=digest)


def _decode_and_shrink(
    data: bytes, digest: str, size: int, quality: int, max_pixels: int, semaphore: PixelSemaphore | None
) -> Decoded:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            return Decoded("too_large", f"{width} x {height} pixels", sha256=digest)
        if width * height == 1:
            return Decoded("placeholder", "1 x 1 pixel", sha256=digest)
        if min(width, height) < SMALLEST:
            return Decoded("too_small", f"{width} x {height} pixels", sha256=digest)
        scans = data.count(START_OF_SCAN) if data.startswith(b"\xff\xd8") else 1
        if scans > SCANS and width * height * scans > SCANS * max_pixels:
            return Decoded("too_large", f"{width} x {height} pixels in {scans} scans", sha256=digest)
        with semaphore.acquire(width * height) if semaphore else nullcontext():
            image = _decode_jpeg(opened, data, size) or _decode_other(opened, size)
        image.info = opened.info  # has the rotation
        with suppress(Exception):  # a damaged EXIF raises any exception, and harms no pixel
            ImageOps.exif_transpose(image, in_place=True)
        image.info = {}  # which would be written too
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Decoded("ok", "", out.getvalue(), image.width, image.height, digest, perceptual_hash(image))


def _decode_jpeg(opened: Image.Image, data: bytes, size: int) -> Image.Image | None:
    """Return a sound JPEG, shrunk by libjpeg-turbo, in two thirds of the time; None for what Pillow has to decode."""
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
    drafted = image.draft("RGB", (size, size))  # a CMYK or damaged JPEG is decoded at a half, quarter or eighth
    width, height = drafted[1][2:] if drafted else image.size
    factor = min(image.size) // (2 * size)
    if factor > 1 and width * height > LARGE:
        return _shrink_to(np.array(_average_squares(image, factor)), (height / factor, width / factor), size)
    return _shrink_to(np.array(_flatten_to_rgb(image)), (height, width), size)


def _average_squares(image: Image.Image, factor: int) -> Image.Image:
    """Return any image as RGB, a pixel for each square of `factor` pixels, a band at a time."""
    width, height = image.size
    averaged = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    rows = max(1, BAND // (width * factor)) * factor
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        averaged.paste(_flatten_to_rgb(band).reduce(factor), (0, top // factor))
    return averaged


def _flatten_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's conversion would cut off what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _shrink_to(pixels: np.ndarray, extent: tuple[float, float], size: int) -> Image.Image:
    """Return the part `extent` of uint8 [height, width, 3], its shorter side `size` pixels unless it is smaller.

    Antialiased bicubic by torch, in a third of Pillow's time. A side of 507 pixels at a half fills 253.5 of 254: taking
    254 would shift the content.
    """
    scale = size / min(extent)
    if scale >= 1:
        return Image.fromarray(pixels)
    # the scale exact, and a hair more, as the sides are rounded down from it
    scales = [(round(side * scale) / side) * (1 + 1e-9) for side in extent]
    nchw = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = nnf.interpolate(nchw, scale_factor=scales, mode="bicubic", antialias=True, align_corners=False)
    return Image.fromarray(shrunk[0].permute(1, 2, 0).contiguous().numpy())


def perceptual_hash(image: Image.Image) -> int:
    """Return the DCT hash, 64 bits: which of the 8 x 8 lowest frequencies of the grey image exceed their median."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = (_DCT @ grey @ _DCT.T).ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())
