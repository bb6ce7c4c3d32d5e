"""`alignrec repair`: DVC writes `.dvc/tmp/rwlock` and `dvc.lock` in place, and refuses to run when one is truncated.

Both can be deleted: without `dvc.lock` every stage runs once more, and resumes from what it has made.
"""

import json
from pathlib import Path

from pipeline.config.document import FAULTS, parsed


def repair(project: Path) -> list[Path]:
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
