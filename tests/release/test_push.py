"""A published version appears atomically, never changes, and survives concurrent publishers."""

import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from buckets import stored
from commands import alignrec
from hub import Hub, hub
from huggingface_hub import constants
from shop import toy
from shop.releases import signing_key
from shop.toy import contents

from alignrec.pipeline.io import sha256
from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature, stores
from alignrec.pipeline.release.fetch import fetch
from alignrec.pipeline.release.push import push

TARGET = "hf://datasets/owner/name"


def built(root: Path, seed: int = 0) -> Path:
    """Make a release; another seed gives other content under the same version."""
    layout = toy.outputs(root)
    if seed:
        path = layout.probes
        path.write_text(path.read_text().replace("0.4", f"0.4{seed}"))
    toy.run("publish", toy.PARAMS, root)
    return layout.release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, signed if possible: the signature is published like any other file."""
    folder = built(tmp_path_factory.mktemp("built"))
    if shutil.which("ssh-keygen"):
        signature.sign(folder, signing_key(tmp_path_factory.mktemp("key") / "key"))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("other"), seed=7)


def outcomes(releases: list[Path], target: str) -> list[str]:
    """Publish all concurrently; return addresses and errors."""

    def outcome(release: Path) -> str:
        try:
            return push(release, target)
        except UserError as e:
            return str(e)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(outcome, releases))


@pytest.fixture(params=["a folder", "S3", "the Hub"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "a folder":
        return str(tmp_path / "to")
    request.getfixturevalue("hf" if request.param == "the Hub" else "s3")
    return TARGET if request.param == "the Hub" else str(request.getfixturevalue("target"))


def test_a_version_comes_back_and_is_never_changed(release: Path, other: Path, anywhere: str, tmp_path: Path) -> None:
    where = push(release, anywhere)
    assert where == f"{anywhere}/shop/0.1.0"
    assert push(release, anywhere) == where
    with pytest.raises(UserError, match=r"0\.1\.0: .*publish\.version"):
        push(other, anywhere)
    assert contents(fetch(where, tmp_path / "here")) == contents(release)


# --- a folder


def test_of_two_that_send_to_a_folder_at_once_one_wins_whole(release: Path, other: Path, tmp_path: Path) -> None:
    said = outcomes([release, other] * 3, str(tmp_path / "public"))
    version = tmp_path / "public/shop/0.1.0"
    won = contents(version)
    assert won in (contents(release), contents(other))
    assert str(version) in said
    assert all("is filling it" in s or "other content" in s or "holds" in s or s == str(version) for s in said), said
    assert [p.name for p in version.parent.iterdir() if not p.name.startswith(".")] == ["0.1.0"]


def test_a_damaged_release_or_a_part_of_one_is_not_sent(release: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(release, tmp_path / "damaged")
    (damaged / "README.md").write_text("?")
    with pytest.raises(UserError, match=r"README\.md"):
        push(damaged, str(tmp_path / "to"))
    part = fetch(str(release), tmp_path / "part", encoder="beit3")
    with pytest.raises(UserError, match="a part of a release"):
        push(part, str(tmp_path / "to"))
    for target in ("s3://key:secret@bucket/x", "https://me:secret@host/x?key=secret"):
        with pytest.raises(UserError) as e:
            push(release, target)
        assert "secret" not in str(e.value)
    assert not (tmp_path / "to").exists()


# --- S3, by moto's server on loopback


@pytest.fixture
def target(bucket: str) -> str:
    return f"s3://{bucket}/below"


@pytest.fixture
def begun(s3: Any, release: Path, bucket: str) -> str:
    """Imitate a publisher killed midway; return a key that it has uploaded."""
    claim = sha256(release / "manifest.json").encode()
    s3.put_object(Bucket=bucket, Key="below/shop/0.1.0.sha256", Body=claim)
    first = manifests.load(release).files[0]
    key, body = f"below/shop/0.1.0/{first.path}", (release / first.path).read_bytes()
    s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"sha256": first.sha256, "sent": "before"})
    return key


def test_an_interrupted_publisher_leaves_nothing_visible_and_continues(
    s3: Any, release: Path, bucket: str, target: str, begun: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json there"):
        fetch(f"{target}/shop/0.1.0", tmp_path / "here")
    push(release, target)
    assert s3.head_object(Bucket=bucket, Key=begun)["Metadata"]["sent"] == "before", "what is there is not sent again"
    names = ["shop/0.1.0.sha256", *(f"shop/0.1.0/{name}" for name in contents(release))]
    assert stored(s3, bucket) == [f"below/{name}" for name in names]


def test_other_content_waits_its_turn(
    s3: Any, release: Path, other: Path, bucket: str, target: str, begun: str
) -> None:
    with pytest.raises(UserError, match=r"another publisher.*delete s3://bucket\d+/below/shop/0\.1\.0\.sha256"):
        push(other, target)
    s3.delete_object(Bucket=bucket, Key="below/shop/0.1.0.sha256")
    push(other, target)
    with pytest.raises(UserError, match="released with other content"):
        push(release, target)


def test_a_publisher_without_its_claim_releases_nothing(s3: Any, release: Path, bucket: str, target: str) -> None:
    def lose(done: int, total: int) -> None:
        s3.delete_object(Bucket=bucket, Key="below/shop/0.1.0.sha256")

    with pytest.raises(UserError, match="deleted while we published"):
        push(release, target, lose)
    assert "below/shop/0.1.0/manifest.json" not in stored(s3, bucket)


def test_a_store_without_conditions_is_refused(
    s3: Any, release: Path, bucket: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = importlib.import_module("moto.server").DomainDispatcherApplication
    whole = app.__call__

    def without_conditions(self: Any, environ: dict[str, Any], start: Any) -> Any:
        return whole(self, {k: v for k, v in environ.items() if not k.startswith("HTTP_IF_")}, start)

    monkeypatch.setattr(app, "__call__", without_conditions)
    with pytest.raises(UserError, match="ignores the condition of a PUT, so two publishers could mix"):
        push(release, target)
    assert stored(s3, bucket) == []


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_at_once_one_wins_whole(
    s3: Any, release: Path, other: Path, bucket: str, target: str, tmp_path: Path, attempt: int
) -> None:
    said = outcomes([release, other, release], target)
    won = [s for s in said if s == f"{target}/shop/0.1.0"]
    lost = [s for s in said if "another publisher is at work" in s or "released with other content" in s]
    assert won
    assert lost
    assert len(won) + len(lost) == 3
    fetch(won[0], tmp_path / "here")
    assert contents(tmp_path / "here") in (contents(release), contents(other))


def look_at_keys(after: int | str) -> None:
    """Let the server check keys after so many requests; by default it never does."""
    httpx.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content=str(after).encode())


def test_no_bucket_and_wrong_keys_are_said_without_the_secret(
    release: Path, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no such bucket"):
        push(release, "s3://nobucket/x")
    push(release, target)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "stranger")
        look_at_keys(after=0)
        for act in (lambda: push(release, target), lambda: fetch(f"{target}/shop/0.1.0", tmp_path / "here")):
            with pytest.raises(UserError, match=r"access denied.*AWS_ACCESS_KEY_ID") as e:
                act()
            assert "a-secret" not in str(e.value)
        look_at_keys(after="inf")


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.exceptions", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=re.escape(f"s3:// needs another package: {installing('s3')}")):
        stores.open_store("s3://bucket/x")


# --- the Hugging Face Hub, by a server on loopback that knows as much of it


@pytest.fixture
def hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(tmp_path / "cache", monkeypatch) as server:
        yield server


def test_the_command_sends_to_the_hub_in_one_commit_and_fetches_from_it(hf: Hub, release: Path, tmp_path: Path) -> None:
    done = alignrec("publish", "shop", "--root", release.parents[2], "--to", TARGET, cwd=tmp_path)
    assert done.stdout == f"published: alignrec fetch {TARGET}/shop/0.1.0\n"
    assert len(hf.dataset.commits) == 2
    assert set(hf.dataset.files) == {"README.md", *(f"shop/0.1.0/{n}" for n in contents(release))}
    header = yaml.safe_load(hf.dataset.files["README.md"].decode().split("---\n")[1])
    paths = {p for c in header["configs"] for s in c["data_files"] for p in s["path"]}
    assert paths <= set(hf.dataset.files), "the card at the root names data files of the version"
    alignrec("fetch", f"{TARGET}/shop/0.1.0", "--to", "here", cwd=tmp_path)
    assert contents(tmp_path / "here") == contents(release)


def test_a_commit_meanwhile_is_kept(hf: Hub, release: Path) -> None:
    hf.before_commit = lambda: hf.dataset.commits.append(hf.dataset.files | {"other/file": b"file"})
    push(release, TARGET)
    assert "other/file" in hf.dataset.files
    assert "shop/0.1.0/manifest.json" in hf.dataset.files
    assert hf.uploads == len([f for f in manifests.load(release).files if f.table]), "large files are sent once"


def test_other_content_of_a_commit_meanwhile_is_refused(hf: Hub, release: Path) -> None:
    hf.before_commit = lambda: hf.dataset.commits.append(hf.dataset.files | {"shop/0.1.0/manifest.json": b"{}"})
    with pytest.raises(UserError, match="released with other content"):
        push(release, TARGET)
    assert hf.dataset.files["shop/0.1.0/manifest.json"] == b"{}"


def test_a_root_card_of_another_dataset_stays(hf: Hub, release: Path) -> None:
    hf.dataset.commits.append({"README.md": b"mine"})
    push(release, TARGET)
    assert hf.dataset.files["README.md"] == b"mine"
    assert push(release, f"{TARGET}/below") == f"{TARGET}/below/shop/0.1.0"
    assert "below/shop/0.1.0/manifest.json" in hf.dataset.files


def test_a_token_that_may_only_read_and_a_hub_that_does_not_answer_are_said(
    hf: Hub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf.read_only.add(hf.dataset.name)
    with pytest.raises(UserError, match=r"access denied \(HTTP 403\); is HF_TOKEN right\?"):
        push(release, TARGET)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr("alignrec.pipeline.release.push.MAX_COMMITS", 1)
    with pytest.raises(UserError, match=r"shop/0\.1\.0: ConnectError; run again to continue"):
        push(release, TARGET)


def test_a_wrong_token_and_a_wrong_repository_are_said_without_the_token(
    hf: Hub, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"hf://datasets/owner/nothere: no such repository"):
        push(release, "hf://datasets/owner/nothere")
    with pytest.raises(UserError, match="write hf://datasets/owner/name"):
        push(release, "hf://datasets/owner")
    push(release, TARGET)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongtoken")
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 1)
    for act in (lambda: push(release, TARGET), lambda: fetch(f"{TARGET}/shop/0.1.0", tmp_path / "here")):
        with pytest.raises(UserError, match="HF_TOKEN") as e:
            act()
        assert "hf_wrongtoken" not in str(e.value)
