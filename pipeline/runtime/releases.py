"""Name the release that a setting takes something from, without the path of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import Name, Part

MANIFEST_FILE = "manifest.json"  # lists all other files of a release, with their hashes
MAX_MANIFEST_BYTES = 64 << 20  # larger manifests are rejected unread
UNREADABLE = "no release"  # the stage that reads the folder says why


class _Title(Part):
    """What names a release; other keys of its manifest are left alone."""

    model_config = ConfigDict(extra="ignore")

    dataset: Name
    version: Annotated[str, Field(pattern=r"^[0-9.]{1,32}$")]


def name_release(folder: str) -> str:
    """Return dataset, version and manifest hash of a release: equal for copies in other folders."""
    manifest = Path(folder).expanduser() / MANIFEST_FILE
    try:
        title = _Title.model_validate(io.read_json(manifest, MAX_MANIFEST_BYTES))
        digest = io.sha256(manifest)
    except (UserError, OSError, ValidationError):
        return UNREADABLE
    return f"{title.dataset} {title.version}, sha256:{digest}"
