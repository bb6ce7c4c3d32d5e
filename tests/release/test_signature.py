"""A signature identifies the publisher, travels with the release, and fits no other manifest."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignrec.commands.app import app
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.remote.fetch import fetch
from alignrec.pipeline.remote.push import push

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="no ssh-keygen: apt-get install openssh-client"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two private keys, with their public keys as .pub."""
    folder = tmp_path_factory.mktemp("keys")
    keys = folder / "ours", folder / "theirs"
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    return keys


@pytest.fixture(scope="module")
def signed(plain: Path, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("signed") / "publish/shop/release")
    signature.sign(folder, keys[0])
    return folder


@pytest.fixture
def release(signed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(signed, tmp_path / "release")


def public(key: Path) -> Path:
    return key.with_suffix(".pub")


def test_a_signed_release_verifies_with_its_key_and_with_no_other(release: Path, keys: tuple[Path, Path]) -> None:
    assert f"signed by {public(keys[0])}" in list(verify(release, public(keys[0])))
    with pytest.raises(UserError, match=r"not a signature of this manifest by .*theirs"):
        list(verify(release, public(keys[1])))
    shown = subprocess.run(["ssh-keygen", "-l", "-f", public(keys[0])], capture_output=True, text=True, check=True)
    assert any(shown.stdout.split()[1] in line for line in verify(release)), "the signer's fingerprint"


def test_a_signature_of_another_manifest_or_purpose_is_refused(release: Path, keys: tuple[Path, Path]) -> None:
    path, ours = release / "manifest.json", (release / signature.NAME).read_bytes()
    signing = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", keys[0]]
    gits = subprocess.run(signing, input=path.read_bytes(), capture_output=True, check=True).stdout
    (release / signature.NAME).write_bytes(gits)
    with pytest.raises(UserError, match="not a signature"):
        list(verify(release, public(keys[0])))
    (release / signature.NAME).write_bytes(ours)
    path.write_bytes(path.read_bytes() + b"\n")
    for key in (None, public(keys[0])):
        with pytest.raises(UserError, match="not a signature"):
            list(verify(release, key))


@pytest.mark.parametrize("data", [b"", b"no signature", b"\0" * (signature.MAX_BYTES + 1)])
def test_what_is_no_signature_is_refused(release: Path, data: bytes) -> None:
    (release / signature.NAME).write_bytes(data)
    with pytest.raises(UserError, match=signature.NAME):
        list(verify(release))


def test_a_signature_that_is_asked_for_and_missing_is_an_error(release: Path, keys: tuple[Path, Path]) -> None:
    (release / signature.NAME).unlink()
    with pytest.raises(UserError, match="not signed"):
        list(verify(release, public(keys[0])))
    with pytest.raises(UserError, match="is this a release folder"):
        signature.sign(release / "features", keys[0])
    with pytest.raises(UserError, match="no such key; make one"):
        signature.sign(release, release / "nowhere")


def test_the_signature_travels_and_a_part_has_none(release: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    where = push(release, str(tmp_path / "shelf"))
    whole = fetch(where, tmp_path / "whole")
    assert f"signed by {public(keys[0])}" in list(verify(whole, public(keys[0])))
    part = fetch(where, tmp_path / "part", encoder="beit3")
    assert not (part / signature.NAME).exists()
    (release / signature.NAME).write_bytes(b"hostile")
    with pytest.raises(UserError, match="not a signature of this manifest"):
        fetch(str(release), tmp_path / "hostile")


def test_the_commands_sign_and_check(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    root = shutil.copytree(signed.parents[2], tmp_path / "outputs")
    release = root / "publish/shop/release"
    done = CliRunner().invoke(app, ["publish", "shop", "--root", str(root), "--sign", str(keys[1])])
    assert done.output.strip() == f"signed: {release / signature.NAME}"
    done = CliRunner().invoke(app, ["verify", str(release), "--key", str(public(keys[1]))])
    assert f"signed by {public(keys[1])}" in done.output
    done = CliRunner().invoke(app, ["verify", str(release), "--key", str(public(keys[0]))])
    assert done.exit_code == 1
    (release / "README.md").write_text("?")
    done = CliRunner().invoke(app, ["publish", "shop", "--root", str(root), "--sign", str(keys[1])])
    assert "damaged" in done.output


def test_no_bit_of_a_signed_release_may_flip(release: Path, keys: tuple[Path, Path]) -> None:
    for name, says in (("manifest.json", "signature"), ("items.parquet", "changed")):
        sound = (release / name).read_bytes()
        for at in range(0, len(sound), len(sound) // 10):
            (release / name).write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
            with pytest.raises(UserError, match=says):
                list(verify(release, public(keys[0])))
        (release / name).write_bytes(sound)
