"""Sign and check manifest.json with ssh-keygen (format: PROTOCOL.sshsig of OpenSSH)."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import File

NAME = manifests.SIGNATURE
MAX_BYTES = 64 << 10
NAMESPACE = "alignrec-release"  # rejects signatures made for other purposes, such as Git commits
PUBLISHER = "publisher"


def sign(folder: Path, key: Path) -> None:
    """Sign a release, prompting for the passphrase; UserError if the release or key is invalid."""
    manifest = manifests.read(folder)
    manifests.parse(folder, manifest)
    if not key.is_file():
        raise UserError(f"{key}: no such key; make one with `ssh-keygen -t ed25519 -f {key}`")
    done = _ssh_keygen("sign", ["-f", str(key)], manifest)
    if done.returncode or b"BEGIN SSH SIGNATURE" not in done.stdout:
        raise UserError(f"{key}: cannot sign with it ({_last_line(done.stderr)})")
    io.write_bytes(folder / NAME, done.stdout)


def check(folder: Path, manifest: bytes, key: Path | None) -> str | None:
    """Check the signature, by `key` if given; return a line to print, None if unsigned; UserError if it fails."""
    path = folder / NAME
    if not path.is_file():
        if key is not None:
            raise UserError(f"{folder}: not signed")
        return None
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes; this is no signature")
    if key is None:
        if shutil.which("ssh-keygen") is None:
            return "signed; not checked: there is no ssh-keygen here"
        done = _ssh_keygen("check-novalidate", ["-s", str(path)], manifest)
        if done.returncode:
            raise UserError(f"{path}: not a signature of this manifest ({_last_line(done.stderr)})")
        return f"signed with {_last_line(done.stdout).rpartition(' with ')[2]}; pass --key to say whose that must be"
    if not key.is_file():
        raise UserError(f"{key}: no such public key")
    with key.open("rb") as f:
        fields = f.read(MAX_BYTES).split()[:2]
    if len(fields) < 2 or not all(
        field.isascii() and field.decode().isprintable() for field in fields
    ):
        raise UserError(f"{key}: not a public SSH key; pass the one-line file that ends in .pub")
    with (
        tempfile.TemporaryDirectory() as temporary
    ):  # Windows cannot open an open temporary file again
        allowed = Path(temporary) / "allowed_signers"
        public_key = b" ".join(fields).decode()
        allowed.write_text(f'{PUBLISHER} namespaces="{NAMESPACE}" {public_key}\n')
        arguments = ["-f", str(allowed), "-I", PUBLISHER, "-s", str(path)]
        done = _ssh_keygen("verify", arguments, manifest)
    if done.returncode:
        raise UserError(
            f"{path}: not a signature of this manifest by {key} ({_last_line(done.stderr + done.stdout)})"
        )
    return f"signed by {key}"


def list_files(folder: Path) -> list[File]:
    path = folder / NAME
    return [manifests.describe_file(folder, path, None)] if path.is_file() else []


def _ssh_keygen(
    command: str, arguments: list[str], manifest: bytes
) -> subprocess.CompletedProcess[bytes]:
    try:
        program = ["ssh-keygen", "-Y", command, "-n", NAMESPACE, *arguments]
        return subprocess.run(program, input=manifest, capture_output=True)
    except FileNotFoundError:
        raise UserError("no ssh-keygen here; signatures need OpenSSH, as Git's do") from None


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines() or [""]
    return "".join(c for c in lines[-1] if c.isprintable())
