"""Registry of content encoders: a kind is a file with a Spec, and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.encode.base import Spec

OURS = "beit3"  # how the kinds begin that read what `pretrain` makes
OFFICIAL = "beit3-official"  # the kind that reads the weights of `pretrain.init` before training
ENCODERS: Registry[Spec[Any]] = Registry(
    "encoders",
    {
        "beit3": "pipeline.encode.beit3:BEIT3",
        "beit3-raw": "pipeline.encode.beit3:RAW",
        "beit3-image-masked": "pipeline.encode.beit3:IMAGE_MASKED",
        "beit3-text-masked": "pipeline.encode.beit3:TEXT_MASKED",
        "beit3-untrained": "pipeline.encode.beit3:UNTRAINED",
        "beit3-official": "pipeline.encode.beit3:OFFICIAL",
        "minilm": "pipeline.encode.minilm:MINILM",
        "tfidf": "pipeline.encode.tfidf:TFIDF",
        "cnn": "pipeline.encode.cnn:CNN_LITE",
        "descriptors": "pipeline.encode.descriptors:DESCRIPTORS",
        "minilm-cnn": "pipeline.encode.minilm:MINILM_CNN",
        "huggingface": "pipeline.encode.huggingface:HUGGINGFACE",
        "sentence-transformers": "pipeline.encode.sentence_transformers:SENTENCE_TRANSFORMERS",
        "open_clip": "pipeline.encode.open_clip:OPEN_CLIP",
        "timm": "pipeline.encode.timm:TIMM",
        "released": "pipeline.release.kind:RELEASED",
    },
)  # kind -> encoder
