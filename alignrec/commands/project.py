"""Set up a project: git, DVC, dvc.yaml and code.json."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from alignrec.commands.params import read
from alignrec.commands.repository import find_repository, read_text, run_git
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.encoders.registry import RELEASED_KIND
from alignrec.pipeline.features.params import SemanticIds
from alignrec.pipeline.images.params import Images
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.release.manifest import MANIFEST_FILE
from alignrec.pipeline.runtime import code
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.pipeline.runtime.yaml_files import read_yaml
from alignrec.pipeline.sources.base import Downloaded
from alignrec.pipeline.sources.download import local_files
from alignrec.stages.order import IN_ORDER

DVC_YAML = Path("dvc.yaml")
PARAMS = Path("params.yaml")
HEAD = (
    "# The table of contents, in data-flow order: `alignrec new` writes it from the stages, "
    "unless it was edited.\n"
)
FIRST_LINE = "stages:\n"
# all sections of params.yaml with their most common keys, at their defaults
SECTIONS = Path(__file__).with_name("sections.yaml")
CODE = Path("code.json")  # hash of each stage's code, and under PACKAGE the version that wrote it
PACKAGE = "alignrec"
OUTPUT_FOLDER = "outputs/{}/${{item.dataset}}"  # output folder of a stage
SHOWN = Path(__file__).with_name("shown.yaml")  # metrics and plots for DVC
PLOT_TEMPLATES = Path(__file__).with_name("plots")
IGNORED = """# unfinished work
/outputs/.work/
# signing is not making: a signature does not make the release stale
/outputs/**/manifest.json.sig
"""
KEPT = """*
!.gitignore
# what DVC shows of the last run that was committed
!/figures/
!/figures/*/
!/figures/*/*.json
!/figures/*/network.npy
"""
SHOWS = ("metrics", "pretrain", "train", "mask", "curves", "heatmaps")
FIGURES = {  # a separate stage, as DVC's run cache skips stages with outputs in git
    "desc": "what DVC shows of a report and git keeps; the article's tables of another run stay",
    "matrix": {"dataset": "${datasets}"},
    "cmd": "mkdir -p outputs/figures/${item.dataset} && "
    "cp -rf outputs/report/${item.dataset}/figures/. outputs/figures/${item.dataset}",
    "deps": ["outputs/report/${item.dataset}/figures"],
    "outs": [
        {f"outputs/figures/${{item.dataset}}/{name}.json": {"cache": False}} for name in SHOWS
    ],
}
CONFIG = {
    "core": {"analytics": "false", "check_update": "false", "autostage": "false"},
    "cache": {"type": "reflink,hardlink,copy"},
}


def dvc_yaml(params: Parameters) -> str:
    options: dict[str, Any] = {"sort_keys": False, "width": 110, "default_flow_style": None}
    stages = {stage.name: _describe_stage(stage, params) for stage in IN_ORDER}
    stages["figures"] = FIGURES

    blocks = []
    for name, stage in stages.items():
        block = yaml.safe_dump({name: stage}, **options)
        blocks.append(indent(block, "  "))
    return with_mark("\n".join(blocks) + f"\n{SHOWN.read_text(encoding='utf-8')}")


def with_mark(listing: str) -> str:
    """Return a dvc.yaml with a hash in its header, by which edits are known."""
    body = f"{FIRST_LINE}{listing}"
    return f"{HEAD}# sha256 of what follows: {hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def code_json() -> dict[str, str]:
    # DVC runs a stage again if its hash changes
    hashes = {stage.name: code.fingerprint(*stage.modules()) for stage in IN_ORDER}
    return {PACKAGE: version(PACKAGE)} | hashes


def read_code(path: Path) -> dict[str, Any]:
    """Return the hashes recorded in a code.json; empty if there is none."""
    recorded = io.read_json(path) if path.is_file() else {}
    return recorded if isinstance(recorded, dict) else {}


def refuse_other_release(path: Path) -> None:
    """Raise UserError if code.json is of another version, as DVC would attribute the outputs to
    that version.
    """
    recorded = read_code(path).get(PACKAGE)
    installed = version(PACKAGE)
    if recorded not in (None, installed):
        raise UserError(
            f"{path}: of alignrec {recorded}, and {installed} is installed; install that one, "
            "or run `alignrec new`, after which `dvc repro` makes again what has other code"
        )


def stale_stages(path: Path, stages: Iterable[Stage]) -> list[str]:
    """Return the names of the stages whose code is not that of a code.json."""
    recorded = read_code(path)
    current = {stage.name: code.fingerprint(*stage.modules()) for stage in stages}
    return [name for name, digest in current.items() if recorded.get(name) != digest]


def has_edited_code(path: Path, stage: Stage) -> bool:
    """Return whether a stage's code was edited after a code.json was written."""
    # only a checkout's code is edited; the fingerprints of all stages would take two seconds
    is_checkout = (code.ROOT / CODE).is_file()
    return is_checkout and path.is_file() and bool(stale_stages(path, [stage]))


def begin_project(folder: Path) -> Iterator[str]:
    """Set up git and DVC in a folder with a params.yaml and yield messages; UserError if git or DVC
    fails.
    """
    repository = find_repository(folder)

    yield from _add_missing_sections(folder / PARAMS)
    params = read(folder / PARAMS)
    if not params[Encode].encoders:  # DVC's stages read the folder that stage encode writes
        raise UserError(
            f"{folder / PARAMS}: 'encode.encoders' is empty; "
            f"list {Encode().encoders[-1]}, which a dataset without texts and images skips"
        )
    yield from _write_dvc_yaml(folder / DVC_YAML, dvc_yaml(params))
    io.write_json(folder / CODE, code_json())

    if not repository:
        created = run_git(folder, "init", "--quiet")
        if created.returncode:
            raise UserError(f"git init: {one_line(created.stderr or created.stdout)}")
        yield "git init: the folder is a repository now"
    if not (folder / ".dvc").is_dir():
        is_below = bool(repository) and Path(repository).resolve() != folder.resolve()
        _init_dvc(folder, is_below)
        yield "dvc init --subdir" if is_below else "dvc init"

    user_files = [*_user_files("download", params), *_user_files("images", params)]
    yield from _track_files(folder, user_files)
    _write_templates(folder / ".dvc" / "plots")
    _write_unless_edited(folder / ".dvcignore", IGNORED)
    _write_unless_edited(folder / "outputs" / ".gitignore", KEPT)


def _write_templates(folder: Path) -> None:
    for template in sorted(PLOT_TEMPLATES.iterdir()):
        path = folder / template.name
        if not path.exists():
            io.write_bytes(path, template.read_bytes())


def _write_unless_edited(path: Path, text: str) -> None:
    lines = []
    if path.exists():
        lines = read_text(path).splitlines()

    # `dvc init` writes only comments
    if all(not line.strip() or line.startswith("#") for line in lines):
        io.write_bytes(path, text.encode())


def _add_missing_sections(path: Path) -> Iterator[str]:
    sections = read_yaml(path)
    if not isinstance(sections, dict):
        raise UserError(f"{path}: not a mapping of sections; begin one with `alignrec new`")

    missing = {}
    for block in SECTIONS.read_text(encoding="utf-8").split("\n\n"):
        name = block.split(":", 1)[0]
        if name not in sections:
            missing[name] = block.strip() + "\n"

    if missing:
        text = path.read_text(encoding="utf-8").rstrip()
        added = "\n".join(missing.values())
        io.write_bytes(path, f"{text}\n\n{added}".encode())
        yield f"{path}: added {', '.join(missing)}, at their defaults"


def _describe_stage(stage: Stage, params: Parameters) -> dict[str, Any]:
    keys = ["dataset"]
    matrix = {"dataset": "${datasets}"}
    out = OUTPUT_FOLDER.format(stage.name)
    if stage.per:
        keys.append(stage.per)
        matrix[stage.per] = f"${{{stage.name}.{stage.per}s}}"
        out = f"{out}/${{item.{stage.per}}}"

    deps = [OUTPUT_FOLDER.format(earlier.name) for earlier in stage.reads]
    deps += _user_files(stage.name, params)
    deps += _older_manifests(stage.name, params)
    arguments = [f"${{item.{key}}}" for key in keys]

    entry: dict[str, Any] = {
        "desc": stage.does,
        "matrix": matrix,
        "cmd": " ".join(["alignrec", stage.name, *arguments]),
    }
    if deps:
        entry["deps"] = deps
    entry["params"] = [*_compared_params(stage, params), {CODE.name: [stage.name]}]
    entry["outs"] = [out]
    return entry


def _compared_params(stage: Stage, params: Parameters) -> list[str]:
    """Return the key that a stage reads, if the file has it, otherwise its section."""
    compared = [stage.name]
    for name in stage.sections:
        section, _, key = name.partition(".")
        if section == SOURCE:
            compared.append(f"{SOURCE}.${{item.dataset}}")
        elif key and key in getattr(params, section).model_fields_set:
            compared.append(name)
        else:
            compared.append(section)

    return compared


def _user_files(stage: str, params: Parameters) -> list[str]:
    """Return the paths outside of outputs/ that a stage reads, so that DVC runs it again after they
    change.
    """
    if stage == "images":
        folder = params[Images].folder
        is_around = folder and Path.cwd().is_relative_to(Path(folder).resolve())
        return [folder] if folder and not is_around else []
    if stage != "download":
        return []

    paths: list[str] = []
    for name in params.datasets:
        source = params.source(name)
        if isinstance(source, Downloaded):
            paths += map(str, local_files(source.files()))

    return list(dict.fromkeys(paths))


def _older_manifests(stage: str, params: Parameters) -> list[str]:
    """Return the manifests of the releases that a stage reads; they list all other files."""
    encoders = params[Encode].encoders
    declared = [given for name, given in params.encoders.items() if name in encoders]
    released = [given.get("model") for given in declared if given.get("kind") == RELEASED_KIND]
    read_by = {
        "encode": released,
        "semantic_ids": [params[SemanticIds].codebooks],
    }
    # not validated yet
    folders = {folder for folder in read_by.get(stage, []) if isinstance(folder, str)}
    return [str(Path(folder).expanduser() / MANIFEST_FILE) for folder in sorted(folders)]


def _track_files(folder: Path, paths: list[str]) -> Iterator[str]:
    """Add the user's files to DVC, for `dvc push` and `dvc pull`, unless git has them."""
    for name in paths:
        path = folder / name
        if not path.exists() or Path(f"{path}.dvc").exists():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            yield (
                f"{name}: outside of the project, so `dvc push` leaves it; "
                "without it, `dvc repro --allow-missing`"
            )
        elif run_git(folder, "ls-files", "--error-unmatch", name).returncode:
            _add_to_dvc(folder, name)
            yield f"dvc add {name}: `dvc push` hands it on"


def _add_to_dvc(folder: Path, name: str) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(folder) as repo:
            repo.scm_context.quiet = True  # `new` prints its own message about `git add`
            repo.add(name)
            repo.unprotect(name)  # a copy, which can be edited without damage to DVC's cache
    except DvcException as e:
        raise UserError(f"dvc add {name}: {one_line(e)}") from e


def _write_dvc_yaml(path: Path, text: str) -> Iterator[str]:
    if path.exists():
        before = read_text(path)
        if before == text:
            return
        _, _, listing = before.partition(FIRST_LINE)
        if before != with_mark(listing):
            yield f"{path}: was edited, and is left so; delete it to have it written again"
            return

    io.write_bytes(path, text.encode())
    yield f"wrote {path}"


def _init_dvc(folder: Path, subdir: bool) -> None:
    # in this process, as one `dvc config` command per key would start Python six times
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo.init(folder, subdir=subdir) as repo, repo.config.edit("repo") as written:
            for section, values in CONFIG.items():
                written.setdefault(section, {}).update(values)
    except DvcException as e:
        raise UserError(f"dvc init: {one_line(e)}") from e
