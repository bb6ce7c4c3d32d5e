"""A folder as a project: dvc.yaml from the stages, what DVC draws and ignores, git and DVC begun. Any folder works."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from pipeline import code, io
from pipeline.config import document
from pipeline.errors import UserError, one_line
from pipeline.stage import Stage
from stages.order import IN_ORDER

DVC_YAML = Path("dvc.yaml")
HEAD = """# The table of contents, in data-flow order. `alignrec init` writes it, unless somebody edited it.
# DVC asks each stage, and one that has nothing to do says so at once: its own key knows parameters, files and code.
"""
MARK = re.compile(r"^# sha256 of what follows: ([0-9a-f]{64})\n", re.MULTILINE)
SHOWN = Path(__file__).with_name("shown.yaml")
"""what of the outputs DVC shows"""
TEMPLATES = Path(__file__).with_name("plots")
"""how DVC draws them, and the page around, which needs no network"""
IGNORED = """# not data: how a stage ran, and how it resumes
/outputs/**/run.json
/outputs/**/.key
/outputs/**/.sha256
/outputs/**/.stamp
/outputs/**/.*.lock
/outputs/**/.*.tmp
# signing is not making: a signature does not make the release stale
/outputs/**/manifest.json.sig
__pycache__/
"""
KEPT = """*
!.gitignore
# what DVC shows of the last run that was committed
!/figures/
!/figures/*/
!/figures/*/*.json
"""
CONFIG = {
    "core.analytics": "false",
    "core.check_update": "false",
    "core.autostage": "false",
    "cache.type": "reflink,hardlink,copy",
    "plots.html_template": "plots/page.html",
}


def dvc_yaml() -> str:
    """Return the whole of dvc.yaml."""
    options: dict[str, Any] = {"sort_keys": False, "width": 110, "default_flow_style": None}
    stages = (yaml.safe_dump({stage.name: _stage(stage)}, **options) for stage in IN_ORDER)
    body = "stages:\n" + "\n".join(indent(stage, "  ") for stage in stages) + "\n" + SHOWN.read_text(encoding="utf-8")
    return f"{HEAD}# sha256 of what follows: {text_sha256(body)}\n{body}"


def begin(folder: Path) -> Iterator[str]:
    """Make a folder a project, and yield what was done; what is there already stays.

    Without git, DVC is begun without it. Below the root of a repository, DVC is begun for the folder alone.

    Raises:
        UserError: git or DVC refuse.
    """
    yield from _write_dvc_yaml(folder / DVC_YAML)
    root = _git_root(folder)
    if root is None and shutil.which("git"):
        _run(folder, "git", "init", "--quiet")
        root = folder.resolve()
        yield "git init: the folder is a repository now"
    if not (folder / ".dvc").is_dir():
        options = ["--no-scm"] if root is None else [] if root == folder.resolve() else ["--subdir"]
        _dvc(folder, "init", "--quiet", *options)
        for key, value in CONFIG.items():
            _dvc(folder, "config", key, value)
        yield " ".join(["dvc init", *options])
    for template in sorted(TEMPLATES.iterdir()):
        if not (path := folder / ".dvc" / "plots" / template.name).exists():
            io.write_bytes(path, template.read_bytes())
    for name, text in {".dvcignore": IGNORED, "outputs/.gitignore": KEPT}.items():
        path = folder / name
        if not path.exists() or _is_dvcs_own(path):
            io.write_bytes(path, text.encode())


def is_shipped(folder: Path, params: Path) -> bool:
    """Return whether a parameter file is that of a clone of this repository, as git has it: nothing is lost with it."""
    if not (folder / params).exists() or (folder / "pipeline").resolve() != code.ROOT / "pipeline":
        return False
    given = document.read(folder / params)
    if _git_root(folder) is None or not (isinstance(given, dict) and given.get("datasets") == ["sample"]):
        return False
    unchanged = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", str(params)], cwd=folder, capture_output=True)
    return unchanged.returncode == 0


def _stage(stage: Stage) -> dict[str, Any]:
    """Return a stage as DVC has it."""
    outs: list[dict[str, Any]] = [{_folder(stage.name): {"persist": True}}]
    if stage.name == "report":
        outs.append({_folder("figures"): {"persist": True, "cache": False}})
    deps = [_folder(earlier.name) for earlier in stage.reads]
    return {
        "desc": stage.does,
        "matrix": {"dataset": "${datasets}"},
        "cmd": f"alignrec {stage.name} ${{item.dataset}}",
        "always_changed": True,
        **({"deps": deps} if deps else {}),
        "outs": outs,
    }


def _folder(stage: str) -> str:
    return f"outputs/{stage}/${{item.dataset}}"


def _write_dvc_yaml(path: Path) -> Iterator[str]:
    """Write dvc.yaml, unless somebody edited it; a file that an earlier release wrote is replaced."""
    text = dvc_yaml()
    if path.exists():
        before = path.read_text(encoding="utf-8", errors="replace")
        if before == text:
            return
        marked = MARK.search(before)
        if marked is None or text_sha256(before[marked.end() :]) != marked[1]:
            yield f"{path}: is not as alignrec writes it, and is left as it is; delete it to have it written anew"
            return
    io.write_bytes(path, text.encode())
    yield f"wrote {path}"


def text_sha256(text: str) -> str:
    """Return the hex sha256 of a text, UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _is_dvcs_own(path: Path) -> bool:
    """Return whether a .dvcignore has nothing but the comments that `dvc init` writes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(not line.strip() or line.startswith("#") for line in lines)


def _git_root(folder: Path) -> Path | None:
    """Return the root of the repository that a folder is in; None outside of one, or without git."""
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True)
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else None


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {one_line(done.stderr or done.stdout)}")


def _dvc(folder: Path, *command: str) -> None:
    """Run DVC of this Python, which need not be on the PATH."""
    _run(folder, sys.executable, "-m", "dvc", *command)
