"""Uploads a release to a dataset repository of the Hugging Face Hub: one commit, on top of the head that was read.

The Hub refuses a commit if the head has moved, and keeps large files by their hash before it, so that an interrupted
call does not send them again.
"""

from pathlib import Path

import yaml

from pipeline.errors import UserError
from pipeline.http import hub
from pipeline.http.hub import Absent
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import Manifest
from pipeline.remote.addresses import hf_path
from pipeline.remote.fetch import Progress
from pipeline.remote.stores import AlreadyReleased

TRIES = 5  # attempts while others move the head
CARD = "README.md"


def push(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    """Publish a verified release to hf://datasets/owner/name[@revision][/prefix], at `place`; see push.push.

    `progress` is called once: the Hub's client shows its own bars.
    """
    address = f"{target.rstrip('/')}/{place}"
    whole = (release / manifests.NAME).read_bytes()
    try:
        for _ in range(TRIES):
            repository = _Repository(target, address)
            base = "/".join(p for p in (repository.prefix, place) if p)
            released = repository.get(f"{base}/{manifests.NAME}")
            if released not in (None, whole):
                raise AlreadyReleased
            total = sum(f.bytes for f in manifest.files)
            if released == whole or repository.commit(
                _files(release, manifest, whole, base, repository), {f.sha256 for f in manifest.files}, place
            ):
                progress(total, total)
                return address
    except Absent:
        raise UserError(f"{target}: no such repository; create it on the Hub first, or {hub.HINT}") from None
    except TransientError as e:
        raise UserError(f"{address}: {e}; run again to continue") from None
    raise UserError(f"{address}: others keep committing there; run again")


class _Repository:
    """A dataset repository at one commit, `head`."""

    def __init__(self, target: str, address: str) -> None:
        from huggingface_hub import HfApi

        self.fs, self.api, self.address = hub.file_system(), HfApi(), address
        with hub.errors(address):
            at = self.fs.resolve_path(hf_path(target))
            self.id, self.revision, self.prefix = at.repo_id, at.revision, at.path_in_repo
            self.head = str(self.api.repo_info(self.id, repo_type="dataset", revision=self.revision).sha)

    def get(self, path: str) -> bytes | None:
        try:
            with hub.errors(self.address):
                return bytes(self.fs.cat_file(f"datasets/{self.id}@{self.head}/{path}"))
        except Absent:
            return None

    def commit(self, files: dict[str, Path | bytes], hashes: set[str], place: str) -> bool:
        """Commit on top of `head`; False if the head has moved. `hashes` has the sha256 of files given as paths."""
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        for add in adds:
            path = files[add.path_in_repo]
            if isinstance(path, Path) and add.upload_info.sha256.hex() not in hashes:
                raise UserError(f"{path}: changed while it was published; run again")
        with hub.errors(self.address):
            try:
                self.api.create_commit(
                    self.id, adds, commit_message=f"Publish {place}", repo_type="dataset", revision=self.revision,
                    parent_commit=self.head,
                )  # fmt: skip
            except HfHubHTTPError as e:
                if e.response.status_code in (409, 412):
                    return False
                raise
        return True


def _files(
    release: Path, manifest: Manifest, whole: bytes, base: str, repository: _Repository
) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {f"{base}/{f.path}": release / f.path for f in manifest.files}
    files |= {f"{base}/{f.path}": (release / f.path).read_bytes() for f in signature.files(release)}
    files[f"{base}/{manifests.NAME}"] = whole
    if not repository.prefix:
        card = (release / CARD).read_text(encoding="utf-8")
        title = next(line for line in card.splitlines() if line.startswith("pretty_name:"))
        root = repository.get(CARD)
        if root is None or title in root.decode("utf-8", errors="replace").splitlines():  # of an earlier version
            files[CARD] = root_card(card, base).encode()
    return files


def root_card(card: str, base: str) -> str:
    """Return the card for the root of the repository, where the Hub looks for it: data files below `base`."""
    _, block, text = card.split("---\n", 2)
    header = yaml.safe_load(block)
    for config in header.get("configs", []):
        for split in config["data_files"]:
            split["path"] = [f"{base}/{path}" for path in split["path"]]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{text}"
