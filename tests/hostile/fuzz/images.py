"""Targets: images, their EXIF, and archives of images."""

import io
import struct
import zipfile
import zlib
from functools import cache

from pictures import noise

from alignrec import schemas
from alignrec.pipeline.images import access
from alignrec.pipeline.images.decode import normalise_image
from alignrec.pipeline.images.params import Images
from tests.hostile.fuzz.target import Target, written
from tests.hostile.test_images import LIMITS, exif, scans

FORMATS = ("PNG", "GIF", "WEBP", "BMP", "TIFF")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


def decoded(data: bytes) -> None:
    result = normalise_image(data, **LIMITS)
    assert result.status in schemas.IMAGE_STATUSES
    assert (result.image is not None) == (result.status == "ok")


def with_exif(data: bytes) -> None:
    """Valid images are kept whatever their EXIF."""
    chunk = data[:60_000]
    png = noise(form="PNG")
    after = 8 + 25  # signature and IHDR
    marked = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
    for image in (noise(exif=b"Exif\0\0" + chunk), png[:after] + marked + png[after:]):
        assert normalise_image(image, **LIMITS).status == "ok"


def archived(data: bytes) -> None:
    archive = access.open_files(Images(), written("a.zip", data))
    try:
        for address in ("a.jpg", "../a.jpg", "b/a.jpg", ""):
            archive.has(address)
            fetched = archive.read(address, 100_000)
            assert fetched.data is None or len(fetched.data) <= 100_000
    finally:
        archive.close()


def zipped(**options: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        archive.writestr("a.jpg", noise())
        archive.writestr("b/a.jpg", bytes(10_000))
    return out.getvalue()


SOUND = [noise(), noise(progressive=True), scans(noise(progressive=True), 20), noise(exif=exif()), SVG]
MODES = {"P": "PNG", "LA": "PNG", "CMYK": "JPEG"}
OTHERS = [*(noise(form=form) for form in FORMATS), *(noise(form=form, mode=mode) for mode, form in MODES.items())]


@cache
def targets() -> dict[str, Target]:
    return {
        "image": Target(decoded, SOUND + OTHERS),
        "exif": Target(with_exif, [exif()[6:], b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\xff"]),
        "zip": Target(archived, [zipped(), zipped(compression=zipfile.ZIP_DEFLATED)]),
    }
