"""Kind `released` of an encoder: that of a feature set of a release."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignrec.pipeline import io
from alignrec.pipeline.encode.base import Spec
from alignrec.pipeline.encode.origin import LOCAL, Origin, Pretrained, modalities, release
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.encoder import Carried

LIBRARY = "alignrec"


class ReleasedParams(Pretrained):
    """What kind `released` reads; `model` is the release folder."""

    encoder: Annotated[str, Field(min_length=1)]
    """feature set of the release"""


def find(where: str, params: ReleasedParams) -> Origin:
    if params.folder is None:
        raise UserError(f"'{where}.model': no release folder '{params.model}'")
    shelf = Carried(params.folder)
    facts, manifest = shelf.facts(params.encoder), shelf.manifest
    name = f"{manifest.dataset} {manifest.version}: {params.encoder}"
    revision = f"{LOCAL}{io.sha256(Path(params.folder) / manifests.NAME)}"
    reads = modalities(where, params, facts.reads)
    space = facts.fingerprint if len(reads) == len(facts.reads) else None
    return Origin(params.folder, name, revision, release(LIBRARY), reads, fingerprint=space)


def load(source: Origin, params: ReleasedParams) -> Any:
    return Carried(source.folder).load(params.encoder).encoder


RELEASED = Spec(load, ReleasedParams, origin=find, library=LIBRARY)
