"""Repair DVC after a kill: it writes two of its own files in place, and refuses to run when one is truncated.

Both can be made again: `.dvc/tmp/rwlock` says who is running, `dvc.lock` what has run. Without it DVC asks every stage,
and one that is done says so at once.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import io
from pipeline.config.document import FAULTS, LARGEST, parsed
from pipeline.layout import STAGES


def mend(project: Path) -> list[Path]:
    """Delete DVC's own files that it cannot read; return the deleted ones.

    Args:
        project: the folder that holds dvc.yaml.

    Raises:
        dvc.lock.LockError: a DVC that is running holds the files.
    """
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    scratch = project / ".dvc" / "tmp"
    if not scratch.is_dir():
        return []
    checks = (
        (scratch / RWLOCK_FILE, json.loads, SCHEMA),
        (project / "dvc.lock", lambda text: parsed(text, len(text)), COMPILED_LOCKFILE_SCHEMA),
    )
    deleted = []
    with make_lock(str(scratch / RWLOCK_LOCK), tmp_dir=str(scratch)):
        for path, parse, schema in checks:
            try:
                if path.exists():
                    schema(parse(path.read_text(encoding="utf-8")))
            except (*FAULTS, Invalid):
                path.unlink()
                deleted.append(path)
    return deleted


def complete(params: Path) -> list[str]:
    """Append the sections that DVC wants and a parameter file lacks, each empty; return their names.

    A file that is no YAML, or not one key below the other, is left as it is.
    """
    if not params.is_file() or params.stat().st_size > LARGEST:
        return []
    try:
        text = params.read_text(encoding="utf-8")
        sections = parsed(text)
        wanted = dict.fromkeys(name for stage in STAGES.values() for name in stage.params if name != "source")
        lacking = [name for name in wanted if name not in sections]
        completed = text.rstrip("\n") + "\n" + "".join(f"{name}: {{}}\n" for name in lacking)
        if not lacking or parsed(completed) != sections | {name: {} for name in lacking}:
            return []
    except FAULTS:
        return []
    io.write_bytes(params, completed.encode())
    return lacking
