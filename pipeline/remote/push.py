"""Publishes a verified release to <target>/<dataset>/<version>/, visible only as a whole.

A released version never changes: the same content is a no-op, other content is refused. Data come first, then the
manifest, only if there is none.
"""

import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.release import manifest as manifests
from pipeline.release import verify
from pipeline.remote.addresses import path_of, scheme_of, web_address
from pipeline.remote.fetch import fetch
from pipeline.remote.transfer import AlreadyReleased, Progress

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
        match scheme_of(target):
            case "s3":
                from pipeline.remote import s3

                return s3.push(release, manifest, target, place, progress)
            case "hf":
                from pipeline.remote import hub

                return hub.push(release, manifest, target, place, progress)
            case "file":
                to = path_of(target) / place
                released = to / manifests.NAME
                if released.is_file() and released.read_bytes() != (release / manifests.NAME).read_bytes():
                    raise AlreadyReleased
                return str(fetch(str(release), to, progress=progress))
    except AlreadyReleased:
        raise UserError(
            f"{target.rstrip('/')}/{place}: this version is released with other content; raise publish.version"
        ) from None
    raise UserError(f"{web_address(target).host}: nothing can be sent there; publish to a folder, s3:// or hf://")
