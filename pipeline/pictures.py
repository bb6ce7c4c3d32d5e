"""Bytes from anywhere -> a normal picture, or the reason why not."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.fft import dctn

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # raster formats that shops use; nothing that can hold a script
SMALLEST = 8  # pixels: shorter side of a real picture

Image.init()  # registers every format, so that FORMATS can name some


class Picture(NamedTuple):
    """How decoding ended: a status of schemas.IMAGE_STATUSES and, if it is ok, the normal picture."""

    status: str
    reason: str
    image: bytes | None  # JPEG, RGB
    width: int  # pixels
    height: int
    sha256: str  # hex, of the bytes as they came
    phash: int | None  # 64 bit


def normalise(data: bytes, size: int, quality: int, max_pixels: int) -> Picture:
    """Decode, rotate as EXIF says, flatten onto white, shrink and encode as JPEG.

    Args:
        data: bytes as fetched, untrusted.
        size: shorter side after shrinking, pixels; smaller pictures keep theirs.
        quality: of the JPEG.
        max_pixels: larger ones are not decoded.
    """
    digest = hashlib.sha256(data).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are judged here
            return _normalise(data, digest, size, quality, max_pixels)
    except UnidentifiedImageError:
        return failed("not_an_image", f"starts with {data[:8]!r}", digest)
    except Image.DecompressionBombError:
        return failed("too_large", "more pixels than any limit", digest)
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError) as e:
        cut = "truncated" in str(e).lower() or isinstance(e, EOFError)
        return failed("truncated" if cut else "not_an_image", " ".join(str(e).split())[:200], digest)


def failed(status: str, reason: str, sha256: str = "") -> Picture:
    """Return an ending without a picture."""
    return Picture(status, reason, None, 0, 0, sha256, None)


def _normalise(data: bytes, digest: str, size: int, quality: int, max_pixels: int) -> Picture:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            return failed("too_large", f"{width} x {height} pixels", digest)
        if width * height == 1:
            return failed("placeholder", "1 x 1 pixel", digest)
        if min(width, height) < SMALLEST:
            return failed("too_small", f"{width} x {height} pixels", digest)
        shrink = size / min(width, height)
        if shrink < 1:  # JPEG decodes at 1/2, 1/4 or 1/8 of its size at a fraction of the cost
            opened.draft("RGB", (round(width * shrink), round(height * shrink)))
        picture = _flat(ImageOps.exif_transpose(opened))
    if shrink < 1:
        target = (max(1, round(picture.width * size / min(picture.size))),
                  max(1, round(picture.height * size / min(picture.size))))  # fmt: skip
        picture = picture.resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Picture("ok", "", out.getvalue(), picture.width, picture.height, digest, phash(picture))


def _flat(picture: Image.Image) -> Image.Image:
    """Return RGB; what is transparent becomes white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(ground, seen).convert("RGB")
    return picture.convert("RGB")


def phash(picture: Image.Image) -> int:
    """Return 64 bits that pictures which look alike share: signs of the low frequencies around their median.

    The usual DCT hash: grey, 32 x 32, DCT-II, the 8 x 8 lowest frequencies, a bit each; the first bit is the highest.
    """
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    low = dctn(grey)[:8, :8].ravel()
    return int("".join("1" if above else "0" for above in low > np.median(low)), 2)
