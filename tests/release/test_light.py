"""A light install, without an extra: releases are fetched, verified, read, exported, compared.

The subprocess refuses to import what a light install does not bring: every distribution but those that the base
dependencies need, directly or not.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import absent_modules, python

from alignrec.pipeline.io.errors import COMPARE_MODULE, HEAVY_MODULES, installing

ROOT = Path(__file__).parent.parent.parent
COMMANDS = """
from alignrec.commands.app import app
sys.exit(any([app(arguments, standalone_mode=False) for arguments in commands]))
"""

WINDOWS = """
import builtins, os, sys, types

ABSENT = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
ABSENT_OF_OS = {
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "fchmod", "fchown", "fork",
    "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "lchown", "mkfifo", "nice",
    "posix_fadvise", "pread", "pwrite", "sched_getaffinity", "sendfile", "setsid", "sync", "sysconf", "uname",
}

class Os(types.ModuleType):
    def __getattr__(self, name):
        if name in ABSENT_OF_OS:
            raise AttributeError(name)
        return getattr(os, name)

imported, renamed = builtins.__import__, os.rename

def import_as_on_windows(name, namespace=None, *rest, **options):
    if not (namespace or {}).get("__name__", "").startswith("alignrec"):
        return imported(name, namespace, *rest, **options)  # libraries have ways of their own on Windows
    if name in ABSENT:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if name == "os":
        return Os("os")
    return imported(name, namespace, *rest, **options)

def rename_as_on_windows(source, target):
    if os.path.exists(target):
        raise FileExistsError(target)
    renamed(source, target)

def symlink_as_on_windows(*given, **options):
    raise OSError(1314, "A required privilege is not held by the client")

builtins.__import__, os.rename = import_as_on_windows, rename_as_on_windows
os.symlink = symlink_as_on_windows
"""
USES = """
import alignrec
from alignrec.__main__ import main

release = alignrec.load("sample", cache="cache")
print(len(release.items), release.folder)
for command in (
    ["verify", release.folder],
    ["fetch", release.folder, "--to", "fetched"],
    ["export", release.folder, "--format", "npy", "--to", "exported"],
):
    sys.argv[1:] = map(str, command)
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
"""


@pytest.fixture(scope="module")
def absent() -> set[str]:
    return absent_modules(("alignrec",))


def light(absent: set[str], cwd: Path, *commands: tuple[str, ...]) -> tuple[int, str, str]:
    """Run commands in a process without some modules; return exit code, output and errors."""
    done = python(absent, cwd, f"commands = {commands!r}\n{COMMANDS}")
    return done.returncode, done.stdout, done.stderr


def test_what_is_heavy_is_absent_from_a_light_install(absent: set[str]) -> None:
    assert absent >= HEAVY_MODULES | {COMPARE_MODULE}
    assert absent.isdisjoint({"pyarrow", "numpy", "typer", "httpx", "huggingface_hub"})


def test_an_install_is_of_a_clone_or_a_wheel_and_never_a_name_that_anyone_may_take() -> None:
    wheel = 'in a clone, or pip install "PATH.whl[{}]" of a wheel'
    assert installing("s3") == f'pip install -e ".[s3]" {wheel.format("s3")}'
    assert installing("cpu") == f'pip install -e ".[cpu]" {wheel.format("cpu")}, or gpu in place of cpu for CUDA'
    named = re.compile(r"pip install[^\n]*[ '\"]alignrec\b|[`'\"]alignrec\[")
    said = [p for top in ("pipeline", "stages", "alignrec", "docs") for p in (ROOT / top).rglob("*.*")]
    for path in [*ROOT.glob("*.md"), *said]:
        if path.suffix in {".md", ".py", ".ipynb", ".html"}:
            assert not named.search(path.read_text(encoding="utf-8")), path


def test_a_light_install_does_it(encoding: Path, absent: set[str], tmp_path: Path) -> None:
    shutil.copytree(encoding, tmp_path / "release")
    export = ("export", "release", "--format")
    commands = [
        ("verify", "release"),
        ("fetch", "release", "--to", "fetched"),
        ("fetch", "release", "--to", "part", "--encoder", "beit3"),
        *((*export, form, "--to", form) for form in ("npy", "mmrec", "recbole", "cornac")),
        ("diff", "release", "release", "--json", "diff.json"),
    ]
    code, _, errors = light(absent, tmp_path, *commands)
    assert (code, errors) == (0, "")
    targets = {words[words.index("--to") + 1] for words in commands[1:-1]}
    made = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert made == targets | {"release", "diff.json"}


def test_a_light_install_works_without_what_windows_lacks(tmp_path: Path) -> None:
    targets = [tmp_path / "fetched", tmp_path / "exported"]
    for target in targets:
        target.mkdir()  # an empty folder may be the target

    script = [sys.executable, "-c", WINDOWS + USES]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "bytes and sha256 of every file agree" in done.stdout
    assert all(any(target.iterdir()) for target in targets)


def test_comparing_needs_scipy_alone(encoding: Path, absent: set[str], tmp_path: Path) -> None:
    shutil.copytree(encoding, tmp_path / "release")
    compare = ("compare", "release", "beit3", "beit3-text-masked", "--to", "out")
    assert light(absent, tmp_path, compare)[::2] == (1, f"error: scipy is not installed: {installing('compare')}\n")
    assert light(absent - {"scipy"}, tmp_path, compare)[::2] == (0, "")


def test_a_light_install_reads_tables(encoding: Path, absent: set[str], tmp_path: Path) -> None:
    code = f"""
import alignrec
from pathlib import Path
from alignrec.pipeline.release.read import Release
release, released = Release(Path({str(encoding)!r})).verify(), alignrec.load({str(encoding)!r})
print(len(release.items), len(release.features("beit3")), len(release.interactions), len(release.edges("beit3")))
ids = released.semantic_ids("beit3")
print(len(ids), ids["codes"].type.list_size)
try:
    released.graph["beit3"]
except alignrec.UserError as e:
    print(e)
"""
    lines = python(absent, tmp_path, code).stdout.splitlines()
    assert lines == ["6 6 16 26", "6 2", f"scipy is not installed: {installing('compare')}"]


def test_the_python_api_names_the_extra(absent: set[str], tmp_path: Path) -> None:
    code = """
import alignrec
for name in alignrec.__all__:
    try:
        getattr(alignrec, name)
    except alignrec.UserError as e:
        print(name, e)
"""
    lacking = {"Encoder": "torch", "ProbeResult": "duckdb", "Recommendation": "torch", "Recommender": "torch"}
    lacking |= {"encoder": "torch", "fit": "torch", "probe": "duckdb"}
    extra = f"is not installed: {installing('cpu')}"
    lines = python(absent, tmp_path, code).stdout.splitlines()
    assert lines == [f"{name} {package} {extra}" for name, package in lacking.items()]


def test_what_needs_more_names_the_extra(encoding: Path, absent: set[str], tmp_path: Path) -> None:
    shutil.copytree(encoding, tmp_path / "release")
    (tmp_path / "items.jsonl").write_text(json.dumps({"asin": "A0", "text": "x"}) + "\n")
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    commands = {
        ("embed", "items.jsonl", "--release", "release", "--encoder", "beit3", "--to", "new"): "torch",
        ("verify", "release", "--data", "items.jsonl"): "torch",
        ("graph", "shop"): "faiss",
    }
    code, _, errors = light(absent, tmp_path, *commands)
    lines = [f"error: {package} is not installed: {installing('cpu')}" for package in commands.values()]
    assert (code, errors.splitlines()) == (1, lines)
