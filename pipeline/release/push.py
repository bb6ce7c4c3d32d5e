"""Publish a verified release to <target>/<dataset>/<version>/, immutable and visible only as a whole."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature, stores
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.release.stores import Bucket, Hub, Progress, Store, open_store, read_small
from alignrec.pipeline.web.retries import Absent, TransientError, retry

MOVES = 5  # attempts if others push to the repository at the same time
CARD = "README.md"
# packages whose exceptions mean a network or server failure
CLIENTS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


def push(release: Path, target: str, progress: Progress = lambda done, total: None) -> str:
    """Verify and publish a release folder; return the address of the version, as `alignrec fetch` takes it.

    `target` is a path, file://, s3://bucket/prefix or hf://datasets/owner/name[@revision][/prefix]. UserError if the
    release is damaged, the version exists or is being published with other content, or the target is not writable.
    """
    verify(release)
    manifest = manifests.load(release)
    if manifest.part_of is not None:
        raise UserError(f"{release}: a part of a release; publish the whole")
    scheme = stores.scheme_of(target)
    if scheme in ("http", "https"):
        raise UserError("nothing can be sent to a web server; publish to a folder, s3:// or hf://")
    address = f"{target.rstrip('/')}/{manifest.dataset}/{manifest.version}"
    destination, folder = open_store(address), stores.local_path(address)
    try:
        if scheme == "hf":
            retry(lambda: _commit_release(release, manifest, target), MOVES)
        elif not _is_released(destination, manifests.read(release)):
            if isinstance(destination, Bucket):
                _upload_release(release, manifest, destination, progress)
            elif folder is not None:
                fetch(str(release), folder, progress=progress)
    except TransientError as e:
        raise UserError(f"{destination.address}: {e}; run again to continue") from None
    return address


def _is_released(store: Store, manifest: bytes) -> bool:
    try:
        found = read_small(store, manifests.NAME, manifests.MAX_BYTES)
    except Absent:
        return False
    if found != manifest:
        raise UserError(
            f"{store.address}: this version is released with other content; raise publish.version"
        )
    return True


def _commit_release(release: Path, manifest: Manifest, target: str) -> None:
    """Commit the release on top of the current head, unless it is there; TransientError if the head moved meanwhile."""
    from huggingface_hub import CommitOperationAdd, HfApi, RepoCard

    repository, revision, prefix = stores.hub_parts(target)
    with _translate_errors(target):
        head = HfApi().repo_info(repository, repo_type="dataset", revision=revision).sha
    # read everything at this commit; as the parent it makes the Hub refuse the commit if the head has moved
    root, place = f"hf://datasets/{repository}@{head}", f"{manifest.dataset}/{manifest.version}"
    base = f"{prefix}/{place}".lstrip("/")
    if _is_released(Hub(f"{root}/{base}"), manifests.read(release)):
        return
    names = [manifests.NAME, *(f.path for f in (*manifest.files, *signature.list_files(release)))]
    contents: dict[str, Path | bytes] = {f"{base}/{name}": release / name for name in names}
    if not prefix:
        # the Hub displays the card in the repository's root; that of another dataset stays
        card = RepoCard((release / CARD).read_text(encoding="utf-8"))
        title = next(
            line for line in str(card).splitlines() if line.startswith("pretty_name:")
        ).encode()
        there = title
        with suppress(Absent):
            there = b"".join(Hub(root).read(CARD))
        if title in there.splitlines():
            for config in card.data.get("configs"):
                for split in config["data_files"]:
                    split["path"] = [f"{base}/{path}" for path in split["path"]]
            contents[CARD] = str(card).encode()
    with _translate_errors(target):
        added = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)
            for path, data in contents.items()
        ]
        if not {f.sha256 for f in manifest.files} <= {
            add.upload_info.sha256.hex() for add in added
        }:
            raise UserError(f"{release}: changed while it was published; run again")
        HfApi().create_commit(
            repository, added, commit_message=f"Publish {place}", repo_type="dataset", revision=revision,
            parent_commit=head,
        )  # fmt: skip


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Translate errors of the Hub's client, dropping messages that may contain signed URLs or tokens."""
    try:
        yield
    except Exception as e:
        if not isinstance(e, OSError) and type(e).__module__.partition(".")[0] not in CLIENTS:
            raise
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status in (401, 403, 404):
            fault = f"{address}: no such repository, or access denied (HTTP {status}); is HF_TOKEN right?"
            raise UserError(fault) from None
        raise TransientError(f"HTTP {status}" if status else type(e).__name__) from None


def _upload_release(release: Path, manifest: Manifest, version: Bucket, progress: Progress) -> None:
    """Upload a release to S3; UserError if the version is claimed for other content."""
    content = manifests.read(release)
    above, _, name = version.address.rpartition("/")
    bucket, claim, mark = (
        Bucket(above),
        f"{name}.sha256",
        hashlib.sha256(content).hexdigest().encode(),
    )
    # objects cannot be renamed: claim the version by <version>.sha256, send the data, and the manifest last;
    # creating the claim a second time must fail; otherwise the store ignores conditional writes
    if _create_object(bucket, claim, mark) and _create_object(bucket, claim, mark):
        with bucket.translate_errors():
            bucket.objects.delete(claim)
        fault = "this store ignores the condition of a PUT, so two publishers could mix"
        raise UserError(f"{bucket.address}: {fault}; send to a folder, and copy that")
    _check_claim(bucket, claim, mark)
    files = [*manifest.files, *signature.list_files(release)]
    done, total = 0, sum(file.bytes for file in files)
    for file in files:
        sent = None  # size and hash of the object, if an earlier run uploaded it
        with suppress(Absent), version.translate_errors():
            found = version.objects.get(file.path, options={"head": True})
            sent = found.meta["size"], found.attributes.get("sha256")
        if sent != (file.bytes, file.sha256):
            data = (release / file.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise UserError(f"{release / file.path}: changed while it was published; run again")
            with version.translate_errors():
                version.objects.put(
                    file.path, data, attributes={"sha256": file.sha256}, max_concurrency=2
                )
        progress(done := done + file.bytes, total)
    # without the claim, another publisher may have written into this version
    _check_claim(bucket, claim, mark)
    with version.translate_errors():
        version.objects.put(manifests.NAME, content)


def _create_object(bucket: Bucket, name: str, content: bytes) -> bool:
    from obstore.exceptions import AlreadyExistsError

    with bucket.translate_errors(), suppress(AlreadyExistsError):
        bucket.objects.put(name, content, mode="create")
        return True
    return False


def _check_claim(bucket: Bucket, claim: str, mark: bytes) -> None:
    try:
        holder = b"".join(bucket.read(claim))
    except Absent:
        raise UserError(
            f"{bucket.address}/{claim}: deleted while we published; run again"
        ) from None
    if holder != mark:
        remedy = f"if that one was given up, delete {bucket.address}/{claim} and run again"
        raise UserError(
            f"{bucket.address}: another publisher is at work on this version with other content; {remedy}"
        )
