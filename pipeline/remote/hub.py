"""Commits a release to a dataset repository of the Hugging Face Hub, on top of the head that was read.

The Hub refuses a commit if the head has moved, and keeps large files by their hash before it, so that an interrupted
call does not send them again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from pipeline.errors import UserError
from pipeline.http.retries import Absent, TransientError, retry
from pipeline.release import manifest as manifests
from pipeline.release import signature
from pipeline.release.manifest import Manifest
from pipeline.remote import stores
from pipeline.remote.addresses import hf_parts

TRIES = 5  # while others move the head
CARD = "README.md"
CLIENTS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
"""packages whose exceptions are failures of the network or of the server"""


def commit(release: Path, manifest: Manifest, target: str, progress: stores.Progress) -> None:
    """Publish to hf://datasets/owner/name[@revision][/prefix]; the Hub's client shows its own progress."""
    retry(lambda: _commit_once(release, manifest, target), TRIES)
    total = sum(f.bytes for f in manifest.files)
    progress(total, total)


def _commit_once(release: Path, manifest: Manifest, target: str) -> None:
    """Commit the release on top of the head, unless it is there; TransientError if the head has moved meanwhile."""
    from huggingface_hub import CommitOperationAdd, HfApi

    repository, revision, prefix = hf_parts(target)
    with _translate_errors(target):
        head = HfApi().repo_info(repository, repo_type="dataset", revision=revision).sha
    root, place = f"hf://datasets/{repository}@{head}", f"{manifest.dataset}/{manifest.version}"
    base = f"{prefix}/{place}".lstrip("/")
    if stores.is_released(stores.Hub(f"{root}/{base}"), manifests.read(release)):
        return
    names = [manifests.NAME, *(f.path for f in (*manifest.files, *signature.files(release)))]
    contents: dict[str, Path | bytes] = {f"{base}/{name}": release / name for name in names}
    if not prefix:
        contents |= _card_of_root(release, stores.Hub(root), base)
    with _translate_errors(target):
        added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in contents.items()]
        if not {f.sha256 for f in manifest.files} <= {add.upload_info.sha256.hex() for add in added}:
            raise UserError(f"{release}: changed while it was published; run again")
        HfApi().create_commit(
            repository, added, commit_message=f"Publish {place}", repo_type="dataset", revision=revision,
            parent_commit=head,
        )  # fmt: skip


def _card_of_root(release: Path, root: stores.Hub, base: str) -> dict[str, bytes]:
    """Return the card for the root of the repository, where the Hub looks for it, unless another dataset has one."""
    card = (release / CARD).read_text(encoding="utf-8")
    title = next(line for line in card.splitlines() if line.startswith("pretty_name:"))
    with suppress(Absent):
        if title not in b"".join(root.read(CARD)).decode("utf-8", errors="replace").splitlines():
            return {}
    _, block, text = card.split("---\n", 2)
    header = yaml.safe_load(block)
    for config in header.get("configs", []):
        for split in config["data_files"]:
            split["path"] = [f"{base}/{path}" for path in split["path"]]
    header = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return {CARD: f"---\n{header}---\n{text}".encode()}


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Translate exceptions of the Hub's client, without their messages: these may hold signed addresses and tokens."""
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
