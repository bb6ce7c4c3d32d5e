"""Whether git and DVC can work in a folder, and the text of a project's own files."""

import os
import shutil
import subprocess
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

# files that `alignrec new`, git or DVC reads and may change
OWN_FILES = (
    *("params.yaml", "dvc.yaml", "code.json", ".dvcignore", ".gitignore", ".dvc/config"),
    *(".git/config", "outputs/.gitignore"),
)
MAX_FILE_BYTES = 1 << 24  # of one of them


def find_repository(folder: Path) -> str:
    """Return the git repository that a folder is in, empty if none.

    Raise UserError if git or DVC cannot work there, before anything is written.
    """
    if not shutil.which("git"):
        raise UserError(
            "git is not installed, and a project needs it; install it, then run `alignrec new`"
        )

    place = str(folder.absolute())
    if "{" in place or "}" in place:  # DVC takes the path of a folder as a template
        raise UserError(
            f"{place}: DVC cannot work in a folder with braces in its path; "
            "rename it, or choose another"
        )

    for name in OWN_FILES:
        if (folder / name).exists():
            io.require_plain(folder / name, MAX_FILE_BYTES)

    searched = run_git(folder, "rev-parse", "--show-toplevel")
    if searched.returncode and "not a git repository" not in searched.stderr:
        fault = one_line(searched.stderr.removeprefix("fatal: "))
        raise UserError(f"{place}: git cannot read its repository: {fault}")
    repository = searched.stdout.strip()
    if repository:
        _refuse_unreadable(repository)
    return repository


def _refuse_unreadable(repository: str) -> None:
    """Raise UserError unless DVC reads a repository, which may be another user's."""
    import pygit2  # slow, and only `new` needs it

    try:
        pygit2.Repository(repository)
    except pygit2.GitError as e:
        raise UserError(
            f"{one_line(e)}; "
            f"if you trust it, run `git config --global --add safe.directory {repository}`"
        ) from None


def run_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}  # for messages in English
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )


def read_text(path: Path) -> str:
    """Return the text of a project's own file, such as dvc.yaml."""
    text = io.read_plain(path, MAX_FILE_BYTES).decode(errors="replace")
    return text.replace("\r\n", "\n")
