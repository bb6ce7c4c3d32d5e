"""Publishes a verified release to <target>/<dataset>/<version>/, visible only as a whole.

A released version never changes: the same content is a no-op, other content is refused. Data come first, then the
manifest, only if there is none.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import io
from pipeline.errors import UserError, printable
from pipeline.release import croissant, signature, verify
from pipeline.release import manifest as manifests
from pipeline.release.manifest import Manifest
from pipeline.remote import stores
from pipeline.remote.fetch import Progress, fetch
from pipeline.remote.stores import AlreadyReleased

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
        with _readdress(release, manifest, target) as (folder, listed):
            return _sender(target)(folder, listed, target, place, progress)
    except AlreadyReleased:
        raise UserError(
            f"{target.rstrip('/')}/{place}: this version is released with other content; raise publish.version"
        ) from None


@contextmanager
def _readdress(release: Path, manifest: Manifest, target: str) -> Iterator[tuple[Path, Manifest]]:
    """Yield the folder to send; for the Hub, links to the release, and a croissant.json with the addresses there."""
    described = io.read_json(release / croissant.NAME) if (release / croissant.NAME).is_file() else None
    if stores.scheme_of(target) != "hf" or described is None or croissant.is_absolute(described):
        described = None
    elif signature.files(release):
        line = f"{release}: signed with relative addresses in {croissant.NAME}; set publish.url before signing"
        print(printable(f"warning: {line}"), file=sys.stderr)
        described = None
    if described is None:
        yield release, manifest
        return
    from huggingface_hub.constants import ENDPOINT

    base = croissant.folder(target, manifest.dataset, manifest.version, ENDPOINT)
    described = croissant.readdressed(described, manifest.files, base, croissant.page(target, ENDPOINT))
    with tempfile.TemporaryDirectory(prefix="alignrec-") as temporary:
        folder = Path(temporary)
        for file in manifest.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).symlink_to((release / file.path).resolve())
        (folder / croissant.NAME).unlink()
        io.write_json(folder / croissant.NAME, described)
        entry = manifests.describe(folder, folder / croissant.NAME, None)
        files = [entry if file.path == croissant.NAME else file for file in manifest.files]
        listed = manifest.model_copy(update={"files": files})
        manifests.write(folder / manifests.NAME, listed)
        yield folder, listed


def _sender(target: str) -> Callable[[Path, Manifest, str, str, Progress], str]:
    scheme = stores.scheme_of(target)
    if scheme == "s3":
        from pipeline.remote import s3

        return s3.push
    if scheme == "hf":
        from pipeline.remote import hub

        return hub.push
    if scheme == "file":
        return _to_folder
    raise UserError(f"{stores.Http(target).address}: nothing can be sent there; publish to a folder, s3:// or hf://")


def _to_folder(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    to = stores.path_of(target) / place
    released = to / manifests.NAME
    if released.is_file() and released.read_bytes() != (release / manifests.NAME).read_bytes():
        raise AlreadyReleased
    return str(fetch(str(release), to, progress=progress))
