"""Kind `released` of an encoder: that of a feature set of a release."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline import io
from pipeline.encode.base import Spec, foreign
from pipeline.encode.origin import LOCAL, Origin, Pretrained, modalities, release
from pipeline.errors import UserError
from pipeline.release import encoder
from pipeline.release import manifest as manifests

LIBRARY = "alignrec"


class ReleasedParams(Pretrained):
    """What kind `released` reads; `model` is the release folder."""

    encoder: Annotated[str, Field(min_length=1)]
    """feature set of the release"""


def find(where: str, params: ReleasedParams) -> Origin:
    """Return where the release is, and which; UserError if it is none, or carries no such encoder."""
    if params.folder is None:
        raise UserError(f"'{where}.model': no release folder '{params.model}'")
    facts, manifest = encoder.facts(params.folder, params.encoder), manifests.load(params.folder)
    name = f"{manifest.dataset} {manifest.version}: {params.encoder}"
    revision = f"{LOCAL}{io.sha256(Path(params.folder) / manifests.NAME)}"
    return Origin(params.folder, name, revision, release(LIBRARY), modalities(where, params, facts.reads))


def load(source: Origin, params: ReleasedParams) -> Any:
    """Load it; UserError as `encoder.load`."""
    return encoder.load(source.folder, params.encoder).encoder


RELEASED = Spec(foreign(load), ReleasedParams, origin=find, library=LIBRARY)
