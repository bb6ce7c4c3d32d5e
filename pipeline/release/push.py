"""Publish a verified release to <target>/<dataset>/<version>/, immutable and visible as a whole."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignrec.pipeline.io.errors import Absent, UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature, stores
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.release.stores import Bucket, Hub, Progress, Store, open_store, read_small
from alignrec.pipeline.web.retries import TransientError, retry

MAX_COMMITS = 5  # attempts if others push to the repository at the same time
CARD = "README.md"
# packages whose exceptions mean a network or server failure
CLIENTS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


def push(release: Path, target: str, progress: Progress = lambda done, total: None) -> str:
    """Verify and publish a release folder; return its address, as `alignrec fetch` takes it.

    `target` is a path, file://, s3://bucket/prefix or
    hf://datasets/owner/name[@revision][/prefix]. UserError if the release is damaged, the version
    exists or is being published with other content, or the target is not writable.
    """
    verify(release)
    manifest = manifests.load(release)
    if manifest.part_of is not None:
        raise UserError(f"{release}: a part of a release; publish the whole")
    scheme = stores.scheme_of(target)
    if scheme in ("http", "https"):
        raise UserError("nothing can be sent to a web server; publish to a folder, s3:// or hf://")

    address = f"{target.rstrip('/')}/{_name_version(manifest)}"
    destination = open_store(address)
    folder = stores.local_path(address)
    try:
        if scheme == "hf":
            retry(lambda: _commit_release(release, manifest, target), MAX_COMMITS)
        elif not _is_released(destination, release):
            if isinstance(destination, Bucket):
                _upload_release(release, manifest, destination, progress)
            elif folder is not None:
                fetch(str(release), folder, progress=progress)
    except TransientError as e:
        raise UserError(f"{destination.address}: {e}; run again to continue") from None
    return address


def _name_version(manifest: Manifest) -> str:
    """Return the path of a release below the target."""
    return f"{manifest.dataset}/{manifest.version}"


def _list_files(release: Path, manifest: Manifest) -> list[File]:
    return [*manifest.files, *signature.list_files(release)]


def _is_released(store: Store, release: Path) -> bool:
    try:
        published = read_small(store, manifests.MANIFEST_FILE, manifests.MAX_MANIFEST_BYTES)
    except Absent:
        return False
    if published != manifests.read(release):
        raise UserError(
            f"{store.address}: this version is released with other content; raise publish.version"
        )
    return True


def _commit_release(release: Path, manifest: Manifest, target: str) -> None:
    """Commit a release on top of the current head, unless it is there.

    Raises TransientError if the head moved meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository, revision, prefix = stores.hub_parts(target)
    with _translate_errors(target):
        head = HfApi().repo_info(repository, repo_type="dataset", revision=revision).sha
    # read everything at this commit; as the parent it makes the Hub refuse the commit if the head
    # has moved
    root = f"hf://datasets/{repository}@{head}"
    version = _name_version(manifest)
    base = f"{prefix}/{version}".lstrip("/")
    if _is_released(Hub(f"{root}/{base}"), release):
        return

    files = _list_files(release, manifest)
    contents: dict[str, Path | bytes] = {}
    for name in (manifests.MANIFEST_FILE, *(file.path for file in files)):
        contents[f"{base}/{name}"] = release / name
    if not prefix and (release / CARD).is_file():
        card = _make_root_card(release, base, Hub(root))
        if card is not None:
            contents[CARD] = card

    with _translate_errors(target):
        added = [CommitOperationAdd(path, data) for path, data in contents.items()]
        hashes = {operation.upload_info.sha256.hex() for operation in added}
        if not hashes.issuperset(file.sha256 for file in files):
            raise UserError(f"{release}: changed while it was published; run again")
        HfApi().create_commit(
            repository,
            added,
            commit_message=f"Publish {version}",
            repo_type="dataset",
            revision=revision,
            parent_commit=head,
        )


def _make_root_card(release: Path, base: str, root: Hub) -> bytes | None:
    """Return the card that the Hub displays in the root; None if that is another dataset's."""
    from huggingface_hub import RepoCard

    card = RepoCard((release / CARD).read_text(encoding="utf-8"))
    lines = str(card).splitlines()
    title = next(line for line in lines if line.startswith("pretty_name:")).encode()
    with suppress(Absent):
        present = b"".join(root.read(CARD))
        if title not in present.splitlines():
            return None

    for config in card.data.get("configs"):
        for split in config["data_files"]:
            split["path"] = [f"{base}/{path}" for path in split["path"]]
    return str(card).encode()


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Translate errors of the Hub's client; their messages may contain signed URLs or tokens."""
    try:
        yield
    except Exception as e:
        package = type(e).__module__.partition(".")[0]
        if not isinstance(e, OSError) and package not in CLIENTS:
            raise
        status = getattr(getattr(e, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise UserError(
                f"{address}: no such repository, or access denied (HTTP {status}); "
                "is HF_TOKEN right?"
            ) from None
        raise TransientError(f"HTTP {status}" if status else type(e).__name__) from None


def _upload_release(release: Path, manifest: Manifest, version: Bucket, progress: Progress) -> None:
    """Upload a release to S3; UserError if the version is claimed for other content."""
    content = manifests.read(release)
    above, _, name = version.address.rpartition("/")
    bucket = Bucket(above)
    claim = f"{name}.sha256"
    mark = hashlib.sha256(content).hexdigest().encode()
    # objects cannot be renamed: claim the version by <version>.sha256, send the data, and the
    # manifest last
    _claim_version(bucket, claim, mark)

    files = _list_files(release, manifest)
    total = sum(file.bytes for file in files)
    n_bytes = 0
    for file in files:
        if not _is_uploaded(version, file):
            _upload_file(release / file.path, version, file)
        n_bytes += file.bytes
        progress(n_bytes, total)

    # without the claim, another publisher may have written into this version
    _check_claim(bucket, claim, mark)
    with version.translate_errors():
        version.objects.put(manifests.MANIFEST_FILE, content)


def _claim_version(bucket: Bucket, claim: str, mark: bytes) -> None:
    # creating the claim a second time must fail; otherwise the store ignores conditional writes
    if _create_object(bucket, claim, mark) and _create_object(bucket, claim, mark):
        with bucket.translate_errors():
            bucket.objects.delete(claim)
        raise UserError(
            f"{bucket.address}: this store ignores the condition of a PUT, "
            "so two publishers could mix; send to a folder, and copy that"
        )
    _check_claim(bucket, claim, mark)


def _is_uploaded(version: Bucket, file: File) -> bool:
    with suppress(Absent), version.translate_errors():
        stored = version.objects.get(file.path, options={"head": True})
        return (stored.meta["size"], stored.attributes.get("sha256")) == (file.bytes, file.sha256)
    return False


def _upload_file(path: Path, version: Bucket, file: File) -> None:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{path}: changed while it was published; run again")
    with version.translate_errors():
        hashed = {"sha256": file.sha256}
        version.objects.put(file.path, data, attributes=hashed, max_concurrency=2)


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
        raise UserError(
            f"{bucket.address}: another publisher is at work on this version with other content; "
            f"if that one was given up, delete {bucket.address}/{claim} and run again"
        )
