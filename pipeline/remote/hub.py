"""Uploads a release to a dataset repository of the Hugging Face Hub: one commit, on top of the head that was read.

The Hub refuses a commit if the head has moved, and keeps large files by their hash before it, so that an interrupted
call does not send them again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError
from pipeline.http import hub
from pipeline.http.hub import Absent
from pipeline.http.retries import TransientError
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import Manifest
from pipeline.remote.addresses import hf_path
from pipeline.remote.transfer import AlreadyReleased, Progress

TRIES = 5  # attempts while others move the head
CARD = "README.md"


def push(release: Path, manifest: Manifest, target: str, place: str, progress: Progress) -> str:
    """Publish to hf://datasets/owner/name[@revision][/prefix]; the Hub's client shows its own progress."""
    address = f"{target.rstrip('/')}/{place}"
    try:
        for _ in range(TRIES):
            if _commit(release, manifest, target, place):
                total = sum(f.bytes for f in manifest.files)
                progress(total, total)
                return address
    except Absent:
        raise UserError(f"{target}: no such repository; create it on the Hub first, or {hub.HINT}") from None
    except TransientError as e:
        raise UserError(f"{address}: {e}; run again to continue") from None
    raise UserError(f"{address}: others keep committing there; run again")


def _commit(release: Path, manifest: Manifest, target: str, place: str) -> bool:
    """Commit the release on top of the head, unless it is there; False if the head has moved meanwhile."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    fs, api = hub.file_system(), HfApi()
    with hub.errors(target):
        at = fs.resolve_path(hf_path(target))
        head = str(api.repo_info(at.repo_id, repo_type="dataset", revision=at.revision).sha)

    def get(path: str) -> bytes | None:
        try:
            with hub.errors(target):
                return bytes(fs.cat_file(f"datasets/{at.repo_id}@{head}/{path}"))
        except Absent:
            return None

    base, whole = f"{at.path_in_repo}/{place}".lstrip("/"), (release / manifests.NAME).read_bytes()
    released = get(f"{base}/{manifests.NAME}")
    if released is not None:
        if released != whole:
            raise AlreadyReleased
        return True
    files = {f"{base}/{f.path}": (release / f.path).read_bytes() for f in signature.files(release)}
    files[f"{base}/{manifests.NAME}"] = whole
    if not at.path_in_repo:
        card = (release / CARD).read_text(encoding="utf-8")
        title = next(line for line in card.splitlines() if line.startswith("pretty_name:"))
        root = get(CARD)
        if root is None or title in root.decode("utf-8", errors="replace").splitlines():  # of an earlier version
            files[CARD] = root_card(card, base).encode()
    adds = _additions(release, manifest, base, files)
    with hub.errors(target):
        try:
            api.create_commit(
                at.repo_id, adds, commit_message=f"Publish {place}", repo_type="dataset", revision=at.revision,
                parent_commit=head,
            )  # fmt: skip
        except HfHubHTTPError as e:
            if e.response.status_code in (409, 412):
                return False
            raise
    return True


def _additions(release: Path, manifest: Manifest, base: str, files: Mapping[str, bytes]) -> list[Any]:
    """Return what a commit adds: some files by content, and those of the manifest by path, held to their sha256."""
    from huggingface_hub import CommitOperationAdd

    adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    for file in manifest.files:
        adds.append(CommitOperationAdd(path_in_repo=f"{base}/{file.path}", path_or_fileobj=release / file.path))
        if adds[-1].upload_info.sha256.hex() != file.sha256:
            raise UserError(f"{release / file.path}: changed while it was published; run again")
    return adds


def root_card(card: str, base: str) -> str:
    """Return the card for the root of the repository, where the Hub looks for it: data files below `base`."""
    _, block, text = card.split("---\n", 2)
    header = yaml.safe_load(block)
    for config in header.get("configs", []):
        for split in config["data_files"]:
            split["path"] = [f"{base}/{path}" for path in split["path"]]
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{text}"
