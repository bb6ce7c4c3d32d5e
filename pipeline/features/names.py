"""The names of all feature sets of a dataset, known before one is made and without loading torch."""

from pipeline.config.parameters import Parameters
from pipeline.encode.params import Encode
from pipeline.sources.base import Downloaded
from pipeline.sources.image_features import FEATURE

TEXT = "minilm"
"""the text encoder that imported image features are concatenated with"""


def feature_sets(params: Parameters, dataset: str) -> list[str]:
    """Return the feature sets that `encode` makes of a dataset: encoded, imported, controls."""
    source, encode = params.source(dataset), params[Encode]
    files = source.files() if isinstance(source, Downloaded) else {}
    imported = [role.removeprefix(FEATURE) for role in files if role.startswith(FEATURE)]
    beside_text = [f"{TEXT}-{name}" for name in imported if TEXT in encode.encoders]
    return [*encode.encoders, *imported, *beside_text, *encode.controls]
