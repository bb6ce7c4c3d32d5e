"""`alignrec verify`: rows recomputed from their inputs, and the signature of the publisher."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import alignrec
from PIL import Image
from shop import releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.push import push
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.runtime.layout import Layout


def command(layout: Layout, *args: object) -> tuple[int, list[str]]:
    given = ["verify", layout.release, "--root", layout.root, *args]
    result = alignrec(*given)
    lines = result.output.splitlines()
    checked = {*verify(layout.release)}
    return result.exit_code, [line for line in lines if line not in checked]


def test_a_true_release_is_attested_by_its_dataset(made: Layout) -> None:
    code, lines = command(made, "--data", "shop")
    assert code == 0
    assert len(lines) == toy.ITEMS + 1
    assert lines[0] == (
        "A0: text agrees, image agrees, beit3 agrees (cosine 1.00000), beit3-image-masked agrees (cosine 1.00000), "
        "beit3-text-masked agrees (cosine 1.00000)"
    )
    assert lines[-1] == (f"{made.release}: attested; text, image and vector of 6 rows agree, lowest cosine 1.00000")


def test_a_changed_text_or_image_is_noticed(layout: Layout) -> None:
    releases.rewrite(layout.items, "text", lambda texts: ["a wholly other text", *texts[1:]])
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert lines[0].startswith("A0: text DIFFERS, image agrees, beit3 DIFFERS")
    assert "beit3-text-masked agrees" in lines[0]
    assert "NOT attested; 1 of 6 rows differ (text of 1, vector of 1)" in lines[-1]
    path = io.shard(layout.images, "images", 0)
    releases.rewrite(path, "image", lambda images: [toy.jpeg((1, 2, 3)), *images[1:]])
    code, lines = command(layout, "--data", "shop")
    assert lines[0].startswith("A0: text DIFFERS, image DIFFERS")
    assert "image of 1" in lines[-1]


def test_a_vector_that_the_encoder_does_not_make_is_noticed(layout: Layout) -> None:
    name = "features/beit3/features-00000.parquet"
    releases.rewrite(layout.release / name, "vector", lambda vectors: [vectors[1], vectors[0], *vectors[2:]])
    releases.relist(layout.release, name)
    code, lines = command(layout, "--data", "shop")
    assert code == 1
    assert ["beit3 DIFFERS" in line for line in lines[:-1]] == [True, True, False, False, False, False]
    assert lines[-1].split("lowest cosine")[0].endswith("NOT attested; 2 of 6 rows differ (vector of 2), ")


def test_a_sample_is_the_same_each_time_and_as_large_as_asked(made: Layout) -> None:
    first = command(made, "--data", "shop", "--sample", 3, "--encoder", "beit3")
    assert (first[0], len(first[1])) == (0, 3 + 1)
    assert first == command(made, "--data", "shop", "--sample", 3, "--encoder", "beit3")


def test_files_attest_too_from_stored_or_original_images(made: Layout, tmp_path: Path) -> None:
    images = io.read_table(io.shard(made.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    items = io.read_table(made.items, schemas.ITEMS).to_pylist()
    (tmp_path / "images").mkdir()
    for item, image in zip(items, images, strict=True):
        if image:
            (tmp_path / "images" / f"{item['asin']}.jpg").write_bytes(image)
    rows = [{"asin": item["asin"], "text": item["text"]} for item in reversed(items[:4])]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"asin": "new"}]))
    given = ("--data", tmp_path / "items.jsonl", "--images", tmp_path / "images")
    code, lines = command(made, *given)
    assert code == 0
    assert [line.split(":")[0] for line in lines[:4]] == ["A0", "A1", "A2", "A3"]
    assert lines[4] == "the data has 4 of the release's 6 items"
    assert f"{made.release}: attested; text, image and vector of 4 rows agree" in lines[5]
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "images/A1.jpg")
    assert command(made, *given)[0] == 1


def test_feature_sets_without_an_encoder_are_named(tmp_path: Path) -> None:
    layout = releases.outputs(tmp_path, releases.params(publish={"features": ["beit3", "random"]}))
    code, lines = command(layout, "--data", "shop")
    assert code == 0
    assert lines[-2] == "not attested, their encoder is not in the release: random"


def test_a_mistake_is_one_line(layout: Layout, tmp_path: Path) -> None:
    def fault(*args: object) -> str:
        code, lines = command(layout, *args)
        assert (code, len(lines)) == (1, 1)
        return lines[0]

    assert "'shp': neither a file of items nor a dataset with items under" in fault("--data", "shp")
    assert "'../shop': neither a file of items nor a dataset" in fault("--data", "../shop")
    assert "no encoder 'biet3' in this release; it has beit3" in fault("--data", "shop", "--encoder", "biet3")
    (tmp_path / "items.jsonl").write_text('{"asin": "elsewhere", "text": "x"}\n')
    assert "has none of the items of" in fault("--data", tmp_path / "items.jsonl")
    releases.drop(layout.release, "encoders/")
    assert "carries no encoder; publish it again" in fault("--data", "shop")


# --- a signature identifies the publisher, travels with the release, and fits no other manifest


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two private keys, with their public keys as .pub."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen: apt-get install openssh-client")
    folder = tmp_path_factory.mktemp("keys")
    return releases.signing_key(folder / "ours"), releases.signing_key(folder / "theirs")


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
    path, ours = release / "manifest.json", (release / signature.SIGNATURE_FILE).read_bytes()
    signing = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", keys[0]]
    gits = subprocess.run(signing, input=path.read_bytes(), capture_output=True, check=True).stdout
    (release / signature.SIGNATURE_FILE).write_bytes(gits)
    with pytest.raises(UserError, match="not a signature"):
        list(verify(release, public(keys[0])))
    (release / signature.SIGNATURE_FILE).write_bytes(ours)
    path.write_bytes(path.read_bytes() + b"\n")
    for key in (None, public(keys[0])):
        with pytest.raises(UserError, match="not a signature"):
            list(verify(release, key))


@pytest.mark.parametrize("data", [b"", b"no signature", b"\0" * (signature.MAX_SIGNATURE_BYTES + 1)])
def test_what_is_no_signature_is_refused(release: Path, data: bytes) -> None:
    (release / signature.SIGNATURE_FILE).write_bytes(data)
    with pytest.raises(UserError, match=signature.SIGNATURE_FILE):
        list(verify(release))


def test_a_signature_that_is_asked_for_and_missing_is_an_error(release: Path, keys: tuple[Path, Path]) -> None:
    (release / signature.SIGNATURE_FILE).unlink()
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
    assert not (part / signature.SIGNATURE_FILE).exists()
    (release / signature.SIGNATURE_FILE).write_bytes(b"hostile")
    with pytest.raises(UserError, match="not a signature of this manifest"):
        fetch(str(release), tmp_path / "hostile")


def test_the_commands_sign_and_check(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    root = shutil.copytree(signed.parents[2], tmp_path / "outputs")
    release = root / "publish/shop/release"
    done = alignrec("publish", "shop", "--root", root, "--sign", keys[1])
    assert done.output.strip() == f"signed: {release / signature.SIGNATURE_FILE}"
    done = alignrec("verify", release, "--key", public(keys[1]))
    assert f"signed by {public(keys[1])}" in done.output
    done = alignrec("verify", release, "--key", public(keys[0]))
    assert done.exit_code == 1
    (release / "README.md").write_text("?")
    done = alignrec("publish", "shop", "--root", root, "--sign", keys[1])
    assert "damaged" in done.output


def test_no_bit_of_a_signed_release_may_flip(release: Path, keys: tuple[Path, Path]) -> None:
    for name, says in (("manifest.json", "signature"), ("items.parquet", "changed")):
        sound = (release / name).read_bytes()
        for at in range(0, len(sound), len(sound) // 10):
            (release / name).write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
            with pytest.raises(UserError, match=says):
                list(verify(release, public(keys[0])))
        (release / name).write_bytes(sound)
