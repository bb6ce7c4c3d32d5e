"""Images as files."""

import io
from typing import Any

from PIL import Image


def saved(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def plain(colour: Any = "red", size: tuple[int, int] = (40, 30), form: str = "JPEG") -> bytes:
    return saved(Image.new("RGB", size, colour), form)


def noise(size: tuple[int, int] = (40, 30), form: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    return saved(Image.effect_noise(size, 50).convert(mode), form, **options)
