"""A folder as a project: dvc.yaml from the stages, plots and ignore files of DVC, git and DVC initialised."""

import hashlib
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from pipeline import code, io
from pipeline.config import document
from pipeline.config.parameters import Parameters
from pipeline.errors import UserError, one_line
from pipeline.sources.base import Downloaded
from pipeline.sources.download import names_local_files
from pipeline.stage import SOURCE, Stage
from stages.order import IN_ORDER
from stages.params import read

DVC_YAML = Path("dvc.yaml")
PARAMS = Path("params.yaml")
HEAD = """# The table of contents, in data-flow order: `alignrec new` writes it from the stages, unless it was edited.
"""
# every section of params.yaml, with the keys that people change most at their defaults
SECTIONS = Path(__file__).with_name("sections.yaml")
PIN = "alignrec"  # key of params.yaml that says which release a project without code of its own is made with
MARK = re.compile(r"^# sha256 of what follows: ([0-9a-f]{64})\n", re.MULTILINE)
LOCAL = ("download", "images")  # stages that read files of this machine, where a source names some
SHOWN = Path(__file__).with_name("shown.yaml")  # what of the outputs DVC shows
TEMPLATES = Path(__file__).with_name("plots")  # how DVC draws them, and the page around, which needs no network
IGNORED = """# not data: what a run took on this machine, and its scratch files
/outputs/**/cost.json
/outputs/**/costs/
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
    "core": {"analytics": "false", "check_update": "false", "autostage": "false"},
    "cache": {"type": "reflink,hardlink,copy"},
    "plots": {"html_template": "plots/page.html"},
}


def dvc_yaml(params: Parameters, clone: bool) -> str:
    """Return dvc.yaml; stages of a `clone` depend on its code, other projects pin the release.

    Stages that read local files always run, as DVC does not track these.
    """
    sources = [params.source(name) for name in params.datasets]
    local = any(isinstance(one, Downloaded) and names_local_files(one.files()) for one in sources)
    options: dict[str, Any] = {"sort_keys": False, "width": 110, "default_flow_style": None}
    stages = (yaml.safe_dump({stage.name: _stage(stage, clone, local)}, **options) for stage in IN_ORDER)
    body = "stages:\n" + "\n".join(indent(stage, "  ") for stage in stages) + "\n" + SHOWN.read_text(encoding="utf-8")
    return f"{HEAD}# sha256 of what follows: {text_sha256(body)}\n{body}"


def begin(folder: Path) -> Iterator[str]:
    """Make a folder with a params.yaml a project, and yield what was done; what is there already stays.

    Missing sections are added to params.yaml, as DVC requires them. DVC is begun without git where there is none, and
    for the folder only below the root of a repository. UserError if git or DVC refuse.
    """
    clone = is_clone(folder)
    yield from _complete(folder / PARAMS, clone)
    yield from _write_dvc_yaml(folder / DVC_YAML, dvc_yaml(read(folder / PARAMS), clone))
    root = _git_root(folder)
    if root is None and shutil.which("git"):
        done = subprocess.run(["git", "init", "--quiet"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"git init: {one_line(done.stderr or done.stdout)}")
        root = folder.resolve()
        yield "git init: the folder is a repository now"
    if not (folder / ".dvc").is_dir():
        _init_dvc(folder, no_scm=root is None, subdir=root not in (None, folder.resolve()))
        yield "dvc init" + (" --no-scm" if root is None else "" if root == folder.resolve() else " --subdir")
    for template in sorted(TEMPLATES.iterdir()):
        if not (path := folder / ".dvc" / "plots" / template.name).exists():
            io.write_bytes(path, template.read_bytes())
    for name, text in {".dvcignore": IGNORED, "outputs/.gitignore": KEPT}.items():
        path = folder / name
        if not path.exists() or _is_dvcs_own(path):
            io.write_bytes(path, text.encode())


def is_clone(folder: Path) -> bool:
    return (folder / "pipeline").resolve() == code.ROOT / "pipeline"


def _complete(path: Path, clone: bool) -> Iterator[str]:
    given = document.read(path)
    if not isinstance(given, dict):
        raise UserError(f"{path}: not a mapping of sections; begin one with `alignrec new`")
    blocks = SECTIONS.read_text(encoding="utf-8").split("\n\n")
    lacking = {name: block for block in blocks if (name := block.split(":", 1)[0]) not in given}
    added = [block.strip() + "\n" for block in lacking.values()]
    if not clone and PIN not in given:
        added.insert(
            0, f"{PIN}: '{version(PIN)}' # the release that makes all this; another one runs everything again\n"
        )
    if added:
        text = path.read_text(encoding="utf-8")
        io.write_bytes(path, (text.rstrip("\n") + "\n\n" + "\n".join(added)).encode())
        yield f"{path}: added {', '.join([*([PIN] if len(added) > len(lacking) else []), *lacking])}, at their defaults"


def is_shipped(folder: Path, file: Path) -> bool:
    if not (folder / file).exists() or not is_clone(folder):
        return False
    given = document.read(folder / file)
    if _git_root(folder) is None or not (isinstance(given, dict) and given.get("datasets") == ["sample"]):
        return False
    unchanged = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", str(file)], cwd=folder, capture_output=True)
    return unchanged.returncode == 0


def _stage(stage: Stage, clone: bool, local: bool) -> dict[str, Any]:
    own_folder = _folder(stage.name) + (f"/${{item.{stage.per}}}" if stage.per else "")
    outs: list[dict[str, Any]] = [{own_folder: {"persist": True}}]
    if stage.name == "report":
        outs.append({_folder("figures"): {"persist": True, "cache": False}})
    found = code.packages(*stage.modules()) if clone else []
    own = [place for place in found if not any(place.startswith(f"{other}/") for other in found)]
    deps = [_folder(earlier.name) for earlier in stage.reads] + own
    sections = [f"{SOURCE}.${{item.dataset}}" if name == SOURCE else name for name in stage.sections]
    return {
        "desc": stage.does,
        "matrix": {"dataset": "${datasets}"} | ({stage.per: f"${{{stage.name}.{stage.per}s}}"} if stage.per else {}),
        "cmd": f"alignrec {stage.name} ${{item.dataset}}" + (f" ${{item.{stage.per}}}" if stage.per else ""),
        **({"always_changed": True} if local and stage.name in LOCAL else {}),
        **({"deps": deps} if deps else {}),
        "params": [stage.name, *sections, *([] if clone else [PIN])],
        "outs": outs,
    }


def _folder(stage: str) -> str:
    return f"outputs/{stage}/${{item.dataset}}"


def _write_dvc_yaml(path: Path, text: str) -> Iterator[str]:
    if path.exists():
        before = path.read_text(encoding="utf-8", errors="replace")
        if before == text:
            return
        marked = MARK.search(before)
        if marked is None or text_sha256(before[marked.end() :]) != marked[1]:
            yield f"{path}: was edited, and is left so; delete it to have it written again"
            return
    io.write_bytes(path, text.encode())
    yield f"wrote {path}"


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_dvcs_own(path: Path) -> bool:
    """Return whether a .dvcignore has only the comments that `dvc init` writes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(not line.strip() or line.startswith("#") for line in lines)


def _git_root(folder: Path) -> Path | None:
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True)
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else None


def _init_dvc(folder: Path, no_scm: bool, subdir: bool) -> None:
    """Initialise DVC with CONFIG in this process; a command per key would start Python six times."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo.init(folder, no_scm=no_scm, subdir=subdir) as repo, repo.config.edit("repo") as written:
            for section, values in CONFIG.items():
                written.setdefault(section, {}).update(values)
    except DvcException as e:
        raise UserError(f"dvc init: {one_line(e)}") from e
