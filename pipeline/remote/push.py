"""Publishes a verified release to <target>/<dataset>/<version>/, visible only as a whole.

A released version never changes: the same content is a no-op, other content is refused. Data come first, then the
manifest, only if there is none.
"""

import re
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.release import manifest as manifests
from pipeline.release import verify
from pipeline.release.manifest import Manifest
from pipeline.remote.addresses import path_of, scheme_of
from pipeline.remote.fetch import Progress, fetch
from pipeline.remote.stores import AlreadyReleased, Http

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def push(release: Path, target: str, progress: Progress = lambda done, total: None) -> str:
    """Publish a release folder, verified first; return the address of the version, for `alignrec fetch`.

    `target` is a path, file://, s3://bucket/prefix, or hf://datasets/owner/name[@revision][/prefix]. UserError: the
    release is damaged, the version is released or being published with other content, or the target is not writable.
    """
    for _ in verify(release):
        pass
    manifest = manifests.load(release)
    if manifest.part_of is not None:
        raise UserError(f"{release}: a part of a release; publish the whole")
    if not PLAIN.fullmatch(manifest.dataset):
        raise UserError(f"{release}: dataset {manifest.dataset!r} cannot be part of an address")
    place = f"{manifest.dataset}/{manifest.version}"
    try:
        return _sender(target)(release, manifest, target, place, progress)
    except AlreadyReleased:
        raise UserError(
            f"{target.rstrip('/')}/{place}: this version is released with other content; raise publish.version"
        ) from None


def _sender(target: str) -> Callable[[Path, Manifest, str, str, Progress], str]:
    scheme = scheme_of(target)
    if scheme == "s3":
        from pipeline.remote import s3

        return s3.push
    if scheme == "hf":
        from pipeline.remote import hub

        return hub.push
    if scheme == "file":
        return _to_folder
    raise UserError(f"{Http(target).address}: nothing can be sent there; publish to a folder, s3:// or hf://")


def _to_folder(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    to = path_of(target) / place
    released = to / manifests.NAME
    if released.is_file() and released.read_bytes() != (release / manifests.NAME).read_bytes():
        raise AlreadyReleased
    return str(fetch(str(release), to, progress=progress))
