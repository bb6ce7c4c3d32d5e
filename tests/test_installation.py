"""`make` installs again what a killed installation left half-written."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DETAILS = "parts-1.0.dist-info"
FILES = {  # pip writes them in this order, so that a killed one leaves the package's name and version first
    f"{DETAILS}/METADATA": "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n",
    f"{DETAILS}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "parts/__init__.py": "",
    "parts/last.py": "",
    f"{DETAILS}/RECORD": "",
}


INSTALL = ".venv/bin/pip install --quiet --no-index --find-links . parts #"  # in place of the product


def make(folder: Path, target: str, install: str = INSTALL) -> int:
    """Run a rule of the Makefile and return its exit code."""
    settings = [f"PYTHON={sys.executable}", "PIP=:", "HASHES=:", f"INSTALL={install}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    command = ["make", "--silent", f".venv/{target}", *settings]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode


def test_a_killed_installation_is_repaired_by_the_next_make(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".ci").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "hashes.txt", ".ci/pip.txt", ".ci/torchscale.txt"):
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "parts-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(name, text)

    # what a first installation leaves that was killed
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (packages,) = tmp_path.glob(".venv/lib/python*/site-packages")
    for name in (f"{DETAILS}/METADATA", "parts/__init__.py"):
        path = packages / name
        path.parent.mkdir()
        path.write_text(FILES[name])
    last = packages / "parts/last.py"
    assert make(tmp_path, "installed") == 0
    assert last.is_file()

    # a finished one is extended in place
    kept = packages / "kept.py"
    kept.touch()
    assert make(tmp_path, "installed-test") == 0
    assert kept.is_file()

    # an update that was killed, whichever rule comes next
    os.utime(tmp_path / ".venv/installed", (1, 1))  # older than pyproject.toml
    assert make(tmp_path, "installed", install="false") != 0
    last.unlink()
    assert make(tmp_path, "installed-test") == 0
    assert last.is_file()
