"""Kind `released` of an encoder: that of a feature set of a release."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignrec.pipeline import io
from alignrec.pipeline.encode.base import Spec
from alignrec.pipeline.encode.hub import LOCAL, Origin, Pretrained, with_version
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
    found = Origin(params.folder, name, revision, with_version(LIBRARY), fingerprint=facts.fingerprint)
    own = found.restrict_to(where, params, facts.reads)
    return own if len(own.reads) == len(facts.reads) else replace(own, fingerprint=None)


def load(source: Origin, params: ReleasedParams) -> Any:
    return Carried(source.folder).load(params.encoder).encoder


RELEASED = Spec(load, ReleasedParams, origin=find, library=LIBRARY)
