"""Publishes a verified release to <target>/<dataset>/<version>/, visible only as a whole.

A released version never changes: the same content is a no-op, other content is refused. Data come first, then the
manifest, only if there is none.
"""

import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import verify
from pipeline.remote import hub, s3
from pipeline.remote.addresses import path_of, scheme_of, web_address
from pipeline.remote.fetch import fetch
from pipeline.remote.stores import Progress, is_released, store

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def push(release: Path, target: str, progress: Progress = lambda done, total: None) -> str:
    """Publish a release folder, verified first; return the address of the version, for `alignrec fetch`.

    `target` is a path, file://, s3://bucket/prefix, or hf://datasets/owner/name[@revision][/prefix]. UserError: the
    release is damaged, the version is released or being published with other content, or the target is not writable.
    """
    verify(release)
    manifest = manifests.load(release)
    if manifest.part_of is not None:
        raise UserError(f"{release}: a part of a release; publish the whole")
    if not PLAIN.fullmatch(manifest.dataset):
        raise UserError(f"{release}: dataset {manifest.dataset!r} cannot be part of an address")
    scheme = scheme_of(target)
    if scheme in ("http", "https"):
        raise UserError(f"{web_address(target).host}: nothing can be sent there; publish to a folder, s3:// or hf://")
    address = f"{target.rstrip('/')}/{manifest.dataset}/{manifest.version}"
    destination = store(address)
    try:
        if scheme == "hf":
            hub.commit(release, manifest, target, progress)
        elif not is_released(destination, manifests.read(release)):
            if scheme == "file":
                fetch(str(release), path_of(address), progress=progress)
            else:
                s3.upload(release, manifest, address, progress)
    except TransientError as e:
        raise UserError(f"{destination.address}: {e}; run again to continue") from None
    return address
