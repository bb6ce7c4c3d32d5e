"""alignrec next to a user's own `pipeline.py`, `stages/` and `schemas.py`, from a clone and from a wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toyproject import ROOT, copied

import alignrec

MARK = "of the user"
COMMANDS = [
    "new mine --interactions ratings.csv --items items.csv",
    "plan mine",
    "embed items.csv --encoder minilm --to vectors",
]
CODE = f"""
import pipeline, schemas, stages, alignrec
assert {{pipeline.MARK, schemas.MARK, stages.MARK}} == {{{MARK!r}}}
print(*alignrec.load("sample").features, alignrec.__file__)
from alignrec.__main__ import main
import sys
for command in sys.argv[1:]:
    sys.argv[1:] = command.split()
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel, built from a copy of this clone, as building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    copied(folder / "clone")
    for name in ("pyproject.toml", "README.md", "LICENSE", "params.yaml"):
        shutil.copy(ROOT / name, folder / "clone")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", folder / "clone"]
    subprocess.run(pip, check=True, cwd=folder)
    return folder / "site"


@pytest.fixture(params=["clone", "wheel"])
def installed(request: pytest.FixtureRequest) -> Path:
    return ROOT if request.param == "clone" else request.getfixturevalue("wheel")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with modules of those names, and two files of a shop."""
    (tmp_path / "stages").mkdir()
    for name in ("pipeline.py", "schemas.py", "stages/__init__.py"):
        (tmp_path / name).write_text(f"MARK = {MARK!r}\n")
    rows = "".join(f"u{u},i{(u + n) % 12},{n}\n" for u in range(12) for n in range(8))
    (tmp_path / "ratings.csv").write_text(f"user,item,timestamp\n{rows}")
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{i},red thing {i}\n" for i in range(12)))
    (tmp_path / ".dvc").mkdir()  # as if DVC had begun: it takes seconds
    return tmp_path


def test_it_loads_a_release_and_runs_commands(installed: Path, folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "GIT_CEILING_DIRECTORIES": "/"}
    commands = COMMANDS[:1] if installed == ROOT else COMMANDS  # a clone has the wheel's modules, in other folders
    code = [sys.executable, "-c", CODE, *commands]
    done = subprocess.run(code, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    saying = [
        "wrote dvc.yaml",
        "encode",
        "12 items, 0 with image, 12 with text",
    ]
    for part in ("linear", str(installed), *saying[: len(commands)]):
        assert part in done.stdout


def test_a_wheel_has_every_file_and_no_other_name_at_the_top(wheel: Path) -> None:
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == {"alignrec", "bin"}
    ours = ["git", "ls-files", "alignrec", "pipeline", "stages", "schemas", "profiles", "params.yaml"]
    listed = subprocess.run(ours, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no clone of git, which knows the files")
    expected = {path.removeprefix("alignrec/") for path in listed.stdout.splitlines() if not (ROOT / path).is_symlink()}
    files = [path.relative_to(wheel / "alignrec") for path in (wheel / "alignrec").rglob("*.*") if path.is_file()]
    assert {str(path) for path in files if "__pycache__" not in path.parts} == expected


# --- `import alignrec` is light and typed, and has the documented names


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "numpy", "pyarrow", "faiss", "duckdb", "transformers")
    shown = f"import sys, alignrec; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_that_is_named_is_there() -> None:
    assert all(getattr(alignrec, name) for name in alignrec.__all__)
    assert dir(alignrec) == sorted([*alignrec.__all__, "__version__"])
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it has .*load"):
        alignrec.lod  # noqa: B018  (misspelt)
