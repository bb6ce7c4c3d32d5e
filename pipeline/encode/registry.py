"""Content encoders: images and texts in, one vector an item out. A new one is a file with a Spec, and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.config import Encode, Section
from pipeline.config.base import checked
from pipeline.errors import UserError
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.encode.base import Spec

ENCODERS: Registry[Spec[Any]] = Registry(
    "encoders",
    {
        "beit3": "pipeline.encode.beit3:BEIT3",
        "beit3-image-masked": "pipeline.encode.beit3:IMAGE_MASKED",
        "beit3-text-masked": "pipeline.encode.beit3:TEXT_MASKED",
        "beit3-untrained": "pipeline.encode.beit3_untrained:UNTRAINED",
        "minilm": "pipeline.encode.minilm:MINILM",
        "cnn": "pipeline.encode.cnn:CNN_LITE",
        "minilm-cnn": "pipeline.encode.minilm_cnn:MINILM_CNN",
        "clip": "pipeline.encode.clip:CLIP",
    },
)
"""name of the feature set -> encoder"""


def settings(params: Encode, name: str) -> Section:
    """Return an encoder's own settings.

    Raises:
        UserError: a key that it does not read, a value that it refuses, or settings of a variant.
    """
    spec = ENCODERS[name]
    if spec.variant_of and name in params.settings:
        raise UserError(f"'encode.settings.{name}': it takes those of {spec.variant_of}; give them there")
    owner = spec.variant_of or name
    return checked(spec.params, params.settings.get(owner, {}), f"encode.settings.{owner}")
