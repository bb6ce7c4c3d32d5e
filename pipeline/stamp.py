"""What a finished stage says of its files, so that no later stage believes a file which it did not write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import io, untouched
from pipeline.config.document import FAULTS, parsed
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.stage import Needs, Stage

if TYPE_CHECKING:
    from pipeline.run import Run

LOCK = "dvc.lock"


def around(run: Run, stage: Stage, needs: Needs) -> dict[str, Any]:
    """Return what a stage finds around it, for `untouched`; of one that is asked each time, nothing.

    It is taken before the stage runs, so that what somebody changes meanwhile is noticed the next time.
    """
    if not run.settings or stage.looks:
        return {}
    read = {run.layout.folder(earlier.name): _present(run.layout, earlier.name) for earlier in stage.reads}
    outside = (path for path in needs.files if read.keys().isdisjoint(path.parents))
    watched = sorted({str(path) for path in (*run.settings, *outside)})
    return {
        "params": str(run.settings[0]),
        "watched": watched,
        "state": untouched.state(watched),
        "read": {str(path): untouched.digest_of(hashes) for path, hashes in read.items()},
    }


def write(run: Run, stage: Stage, key: str, found: dict[str, Any]) -> None:
    """Write `Layout.stamp` for a stage's present files: the sha256 of each, and all that says they are up to date.

    Later stages hash a file only if it was touched since, so that each is read for that once.

    Args:
        run: that made them.
        stage: of the run.
        key: of what the files depend on, see `Run.key`.
        found: by `around`.
    """
    files, folder = _present(run.layout, stage.name), run.layout.folder(stage.name)
    stamp: dict[str, Any] = {"key": key, "files": files, "touched": {name: io.touched(folder / name) for name in files}}
    io.write_bytes(run.layout.stamp(stage.name), json.dumps(stamp | found, indent=1).encode())


def holds(run: Run, stage: Stage) -> bool:
    """Return whether a stage has ended with the same needs, and its files are as it left them."""
    for earlier in stage.reads:  # whose stamps know the hashes of their files
        _read(run.layout, earlier.name)
    stamp = _read(run.layout, stage.name)
    if stamp is None or not run.layout.run_record(stage.name).is_file():
        return False
    if stamp["files"] != _present(run.layout, stage.name):
        return False
    needs = stage.asks(run)
    found = around(run, stage, needs)
    if stamp["key"] != run.key(*needs):
        return False
    if found:
        write(run, stage, stamp["key"], found)  # so that the next time the file system alone is asked
    return True


def _read(layout: Layout, stage: str, rereads: bool = False) -> dict[str, Any] | None:
    """Return a stamp, and take its hashes as known unless `rereads`; None where there is none, or no whole one."""
    try:
        stamp = json.loads(layout.stamp(stage).read_bytes())
        if not (isinstance(stamp["key"], str) and isinstance(stamp["files"], dict)):
            return None
        for name, state in () if rereads else stamp["touched"].items():
            io.remember(layout.folder(stage) / name, state, stamp["files"][name])
        return stamp
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def altered(layout: Layout, stage: str, rereads: bool = False) -> list[Path]:
    """Return the files of a finished stage that are not as it left them, that are gone, or that it did not write.

    Returns:
        sorted paths; none if the stage has left no stamp. `rereads` hashes those too that nobody has touched since.
    """
    stamp = _read(layout, stage, rereads)
    if stamp is None:
        return []
    files, present = stamp["files"], _present(layout, stage)
    return sorted(layout.folder(stage) / n for n in files.keys() | present.keys() if present.get(n) != files.get(n))


def vouch(layout: Layout, stage: Stage) -> None:
    """Refuse files of the stages that `stage` reads which are not as those left them.

    A stage without a stamp, whose files `dvc checkout` may have brought, is held to dvc.lock, where that names it.

    Raises:
        UserError: one is altered, gone, or of no stage; it says what makes it again.
    """
    if stage.rereads:
        io.forget()
    for earlier in stage.reads:
        again = f"run `alignrec {earlier.name} {layout.dataset}`, which makes it again"
        if path := next(iter(altered(layout, earlier.name, stage.rereads)), None):
            what = "is not as it was made" if path.exists() else "is gone"
            raise UserError(f"{path} {what}, and {stage.name} reads it; {again}")
        if _read(layout, earlier.name, stage.rereads):
            continue
        if (locked := _locked(layout, earlier.name)) and _digest(layout.folder(earlier.name)) != locked:
            raise UserError(
                f"{layout.folder(earlier.name)}: its files are not those of {LOCK}, and {stage.name} reads it; {again}"
            )


def _present(layout: Layout, stage: str) -> dict[str, str]:
    """Return relative path -> sha256 of a stage's files."""
    files, folder = layout.outputs(stage), layout.folder(stage)
    return {str(p.relative_to(folder)): digest for p, digest in zip(files, io.sha256s(files), strict=True)}


def _locked(layout: Layout, stage: str) -> str | None:
    """Return what dvc.lock has of a stage's folder; None where it has nothing."""
    path = layout.root.parent / LOCK
    try:
        text = path.read_text(encoding="utf-8")
        outs: list[dict[str, Any]] = parsed(text, len(text))["stages"][f"{stage}@{layout.dataset}"]["outs"]
        where = layout.folder(stage).relative_to(layout.root.parent).as_posix()
        return next((out["md5"] for out in outs if out["path"] == where), None)
    except (OSError, *FAULTS):
        return None


def _digest(folder: Path) -> str:
    """Return the hash that DVC gives a folder: MD5 over the MD5 and path of each file that .dvcignore leaves it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_record(path))
    rows = []
    for path in files:
        with path.open("rb") as f:
            md5 = hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        rows.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    text = json.dumps(sorted(rows, key=lambda row: row["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _is_record(path: Path) -> bool:
    """Return whether a file says how a stage ran, which DVC is told to ignore."""
    return (
        path.name in io.UNLISTED or path.suffix == ".sig" or (path.name[0] == "." and path.suffix in (".lock", ".tmp"))
    )
