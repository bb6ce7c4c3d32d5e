"""Vectors of different fingerprints are never mixed: embed, load, serve and compare name the difference."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import networks
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load, save
from shop import releases as foreign
from shop import toy
from typer.testing import Result

import alignrec
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import embed as embedding

OURS = {"kind": "timm", "model": "vit", "revision": "a", "parts": {"x": {"dim": 3}}}
FEATURES, ENCODER = "features/beit3/features-00000.parquet", "encoders/beit3/encoder.json"


def run(*arguments: str | Path) -> Result:
    return commands.alignrec(*arguments)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        *((OURS, ""), ({}, "")),
        (OURS | {"revision": "b"}, "revision 'a' and 'b'"),
        (OURS | {"parts": {"x": {"dim": 4}}}, "x: dim 3 and 4"),
        (OURS | {"parts": {"x": {"dim": 3, "more": 1}}}, ""),
        ({"kind": ["\x1b[2J" * 100]}, "kind 'timm' and ['\\x1b[2J"),
    ],
)
def test_what_differs_is_named(theirs: dict[str, Any], said: str) -> None:
    found = io.first_difference(OURS, theirs)
    assert (found.startswith(said), bool(found)) == (True, bool(said))
    assert (found.isprintable(), len(found) < 120) == (True, True)


def test_a_deeply_nested_fingerprint_is_ignored() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"parts": deep}
    assert io.fingerprint_of({io.FINGERPRINT: deep}) == {}
    assert io.fingerprint_of({io.FINGERPRINT: [1]}) == io.fingerprint_of({}) == {}
    assert io.fingerprint_of({io.FINGERPRINT: OURS}) == OURS


def recorded(path: Path, **changed: object) -> None:
    table, record = pq.read_table(path, partitioning=None), io.record(path)
    record |= {io.FINGERPRINT: io.fingerprint_of(record) | changed}
    pq.write_table(table.replace_schema_metadata({"alignrec": json.dumps(record)}), path)


# --- embed


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, str]]:
    """Write a table and a network; return its encoder."""
    monkeypatch.chdir(tmp_path)
    networks.sentences(Path("net"))
    Path("t.csv").write_text("id,text\n1,red ball\n2,green tree\n")

    def embed() -> tuple[int, str]:
        done = run("embed", "t.csv", "--encoder", "sentence-transformers:net/model", "--to", "v")
        return done.exit_code, done.output

    return embed


def test_another_network_under_one_name_does_not_go_on_with_a_killed_run(
    table: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise UserError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "_write_shards", killed)
        assert table()[1].endswith("killed\n")
    Path(".v.parts/done/features-00000.parquet").parent.mkdir(exist_ok=True)
    Path(".v.parts/done/features-00000.parquet").write_text("of the network before")
    path = next(Path("net/model").rglob("*.safetensors"))  # trained on
    path.write_bytes(save({name: x + np.float32(1) for name, x in load(path.read_bytes()).items()}))
    assert table()[0] == 0


def test_a_finished_folder_records_the_network_and_is_not_overwritten(table: Callable[[], tuple[int, str]]) -> None:
    assert table()[0] == 0
    assert "v: exists already" in table()[1]
    made = io.fingerprint_of(io.record(Path("v/features-00000.parquet")))
    assert made == io.fingerprint_of(json.loads(Path("v/_embed.json").read_text()))
    assert {"kind", "model", "revision", "prompt", "max_tokens"} <= made.keys()


# --- a release


@pytest.fixture
def release(encoding: Path, tmp_path: Path) -> Path:
    return shutil.copytree(encoding, tmp_path / "release")


def test_a_set_its_encoder_and_new_items_have_one_fingerprint(release: Path, tmp_path: Path) -> None:
    made = io.fingerprint_of(io.record(release / FEATURES))
    assert made == json.loads((release / ENCODER).read_text())["fingerprint"]
    assert made.keys() >= {"kind", "max_tokens", "whiten", "weights"}
    (tmp_path / "new.csv").write_text("id,text\n1,red ball\n")
    done = run("embed", tmp_path / "new.csv", "--release", release, "--encoder", "beit3", "--to", tmp_path / "new")
    assert done.exit_code == 0, done.output
    ours = io.fingerprint_of(io.record(tmp_path / "new/features-00000.parquet"))
    assert ours == made | {"image_size": 256, "image_quality": 90}  # which the toy's images do not record


def refused(release: Path) -> str:
    """Return the one-line error of `load` and all commands."""
    with pytest.raises(UserError) as refusal:
        alignrec.load(release)
    said = str(refusal.value)
    assert "\n" not in said
    for command in (
        ("serve", release, "--port", "0"),
        ("compare", release, "beit3", "beit3-image-masked"),
        ("embed", "t.csv", "--release", release, "--encoder", "beit3", "--to", "v"),
    ):
        done = run(*command)
        assert done.exit_code == 1
        assert done.output.replace("\n", " ").strip() == f"error: {said}", command
    return said


def test_a_set_of_another_encoder_than_the_released(release: Path, encoding: Path) -> None:
    recorded(release / FEATURES, max_tokens=7)
    foreign.put(release, FEATURES, (release / FEATURES).read_bytes())
    foreign.drop(release, "semantic_ids/")  # which are of the file as it was
    assert "encoders/beit3/encoder.json: encodes into another space than beit3: max_tokens 7 and" in refused(release)

    shutil.rmtree(release)
    shutil.copytree(encoding, release)
    weights = "encoders/beit3/encoder.safetensors"
    changed = {name: x + np.float32(1) for name, x in load((release / weights).read_bytes()).items()}
    foreign.put(release, weights, save(changed))
    assert "encodes into another space than beit3: weights '" in refused(release)

    shutil.rmtree(release)
    shutil.copytree(encoding, release)
    for name, inputs in (("users", "a"), ("items", "b")):
        path = f"embeddings/{name}.parquet"
        recorded(release / path, inputs=inputs)
        foreign.put(release, path, (release / path).read_bytes())
    assert "embeddings/users.parquet: not of one set with items.parquet: inputs 'b' and 'a'" in refused(release)


# --- a dataset


def test_files_of_two_fingerprints_are_no_set(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path / "outputs")
    folder = layout.features("beit3")
    toy.write_set(folder, io.read_features(folder), rows=4, record=toy.record("encode"))
    for number, path in enumerate(io.shards(folder, "features")):
        recorded(path, revision="ab"[number])
    (tmp_path / "params.yaml").write_text("datasets: [shop]\nsources: {shop: {kind: sample}}\n")
    toy.ended(layout)
    for given in ("beit3", f"theirs={folder}"):
        done = run("compare", "shop", given, "random", "--root", layout.root, "--params", tmp_path / "params.yaml")
        assert done.exit_code == 1
        assert "not of one set with features-00000.parquet: revision 'a' and 'b'; make the set again" in done.output
