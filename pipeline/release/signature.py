"""Sign and check manifest.json with ssh-keygen (format: PROTOCOL.sshsig of OpenSSH)."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import SIGNATURE_FILE, File

MAX_SIGNATURE_BYTES = 64 << 10
NAMESPACE = "alignrec-release"  # rejects signatures made for other purposes, such as Git commits
PUBLISHER = "publisher"


def sign(folder: Path, key: Path) -> None:
    """Sign a release, prompting for the passphrase; UserError if the release or key is invalid."""
    manifest = manifests.read(folder)
    manifests.parse(folder, manifest)
    if not key.is_file():
        raise UserError(f"{key}: no such key; make one with `ssh-keygen -t ed25519 -f {key}`")
    signing = _ssh_keygen("sign", ["-f", str(key)], manifest)
    if signing.returncode or b"BEGIN SSH SIGNATURE" not in signing.stdout:
        raise UserError(f"{key}: cannot sign with it ({_last_line(signing.stderr)})")
    io.write_bytes(folder / SIGNATURE_FILE, signing.stdout)


def check(folder: Path, manifest: bytes, key: Path | None) -> str | None:
    """Check the signature, by `key` if given; UserError if it fails.

    Returns a line to print, None if the release is not signed.
    """
    path = folder / SIGNATURE_FILE
    if not path.is_file():
        if key is not None:
            raise UserError(f"{folder}: not signed")
        return None
    size = path.stat().st_size
    if size > MAX_SIGNATURE_BYTES:
        raise UserError(f"{path}: {size} bytes; this is no signature")
    return _check_any(path, manifest) if key is None else _check_key(path, manifest, key)


def _check_any(path: Path, manifest: bytes) -> str:
    if shutil.which("ssh-keygen") is None:
        return "signed; not checked: there is no ssh-keygen here"
    checking = _ssh_keygen("check-novalidate", ["-s", str(path)], manifest)
    if checking.returncode:
        raise UserError(f"{path}: not a signature of this manifest ({_last_line(checking.stderr)})")
    signer = _last_line(checking.stdout).rpartition(" with ")[2]
    return f"signed with {signer}; pass --key to say whose that must be"


def _check_key(path: Path, manifest: bytes, key: Path) -> str:
    public_key = _read_public_key(key)
    with tempfile.TemporaryDirectory() as temporary:
        # Windows cannot open an open temporary file again
        allowed = Path(temporary) / "allowed_signers"
        allowed.write_text(f'{PUBLISHER} namespaces="{NAMESPACE}" {public_key}\n')
        arguments = ["-f", str(allowed), "-I", PUBLISHER, "-s", str(path)]
        checking = _ssh_keygen("verify", arguments, manifest)
    if checking.returncode:
        reason = _last_line(checking.stderr + checking.stdout)
        raise UserError(f"{path}: not a signature of this manifest by {key} ({reason})")
    return f"signed by {key}"


def _read_public_key(key: Path) -> str:
    """Return kind and data of a public key, without its comment."""
    if not key.is_file():
        raise UserError(f"{key}: no such public key")
    with key.open("rb") as f:
        fields = f.read(MAX_SIGNATURE_BYTES).split()[:2]
    is_text = all(field.isascii() and field.decode().isprintable() for field in fields)
    if len(fields) < 2 or not is_text:
        raise UserError(f"{key}: not a public SSH key; pass the one-line file that ends in .pub")
    return b" ".join(fields).decode()


def list_files(folder: Path) -> list[File]:
    path = folder / SIGNATURE_FILE
    return [manifests.describe_file(folder, path)] if path.is_file() else []


def _ssh_keygen(
    command: str, arguments: list[str], manifest: bytes
) -> subprocess.CompletedProcess[bytes]:
    program = ["ssh-keygen", "-Y", command, "-n", NAMESPACE, *arguments]
    try:
        return subprocess.run(program, input=manifest, capture_output=True)
    except FileNotFoundError:
        raise UserError("no ssh-keygen here; signatures need OpenSSH, as Git's do") from None


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines() or [""]
    return "".join(filter(str.isprintable, lines[-1]))
