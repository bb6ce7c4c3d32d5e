"""Networks from the Hub, pinned to a commit, or from a folder; incomplete ones and pickles are refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest
import torch
from hub import Hub
from hub import hub as serving
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from alignrec.pipeline.encoders.hub import Origin
from alignrec.pipeline.encoders.huggingface import HuggingFace, HuggingFaceParams
from alignrec.pipeline.encoders.registry import find_network
from alignrec.pipeline.io.errors import UserError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(tmp_path / "cache", monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bert(tmp_path_factory.mktemp("models") / "bert")


def find(given: dict[str, object], kind: str = "huggingface") -> Origin:
    network = find_network({"mine": {"kind": kind, **given}}, "mine", Path("nowhere"))
    assert network.origin is not None
    return network.origin


def refused(given: dict[str, object], kind: str = "huggingface") -> str:
    with pytest.raises(UserError) as e:
        find(given, kind)
    assert "\n" not in str(e.value)
    return str(e.value)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


# --- the Hub


def test_a_branch_stands_for_a_commit_and_a_commit_for_itself(hub: Hub, bert: Path) -> None:
    old, new = hub.publish("someone/bert", bert), hub.publish("someone/bert", bert)
    assert find({"model": "someone/bert"}).revision == new
    assert find({"model": "someone/bert", "revision": "main"}).revision == new
    source = find({"model": "someone/bert", "revision": old})
    assert (source.revision, source.model) == (old, "someone/bert")
    assert source.library.startswith("transformers ")
    assert (source.folder / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()


def test_only_what_is_needed_is_fetched_and_once(hub: Hub, bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "bert")
    for name in ("pytorch_model.bin", "onnx/model.onnx", "modeling_mine.py", "open_clip_model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"much")
    commit = hub.publish("someone/bert", folder)
    source = find({"model": "someone/bert"})
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert sorted(hub.fetched) == [f"someone/bert/{name}" for name in wanted]
    hub.fetched.clear()
    hub.repositories.clear()  # not even the Hub is needed for a commit that is there
    assert find({"model": "someone/bert", "revision": commit}) == source
    assert hub.fetched == []


def test_code_is_fetched_only_when_it_is_trusted(hub: Hub, bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "bert")
    (folder / "modeling_mine.py").write_text("raise SystemExit('ran')")
    hub.publish("someone/bert", folder)
    trusted = find({"model": "someone/bert", "trust_remote_code": True, "modalities": ["text"]})
    assert "someone/bert/modeling_mine.py" in hub.fetched
    assert trusted.reads == ("text",)
    assert "modalities' is required" in refused({"model": "someone/bert", "trust_remote_code": True})


def test_code_of_a_model_does_not_run_untrusted(bert: Path, tmp_path: Path) -> None:
    folder, ran = copied(bert, tmp_path / "bert"), tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nfrom transformers import BertConfig as Mine")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "trust_remote_code" in refused({"model": str(folder)})
    assert not ran.exists()
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    trusted = {"model": str(folder), "trust_remote_code": True, "modalities": ["text"]}
    with pytest.raises(SystemExit, match="ran"):  # so that this test can fail
        HuggingFace(find(trusted), HuggingFaceParams.model_validate(trusted))


def test_code_of_a_tokenizer_does_not_run_either(tmp_path: Path) -> None:
    folder = networks.open_clip(tmp_path / "clip")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["mine.Mine", null]}}')
    assert "tokenizer is Python code of its own" in refused({"model": str(folder)}, "open_clip")


def test_what_the_hub_lacks_is_said(hub: Hub, bert: Path) -> None:
    hub.publish("someone/bert", bert)
    assert "someone/bart: neither a folder nor a model on the Hub" in refused({"model": "someone/bart"})
    assert "'encoders.mine.revision': someone/bert has no revision 'v9'" in refused(
        {"model": "someone/bert", "revision": "v9"}
    )


def test_without_a_network_what_was_fetched_serves(hub: Hub, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("someone/bert", bert)
    source = find({"model": "someone/bert"})
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert find({"model": "someone/bert"}) == source
    assert "the Hub cannot be reached" in refused({"model": "someone/other"})
    (source.folder / "tokenizer.json").unlink()  # as if the download had ended before it
    assert "not complete in the cache" in refused({"model": "someone/bert"})


# --- a folder


def test_a_folder_is_known_by_its_content_and_not_by_its_place(bert: Path, tmp_path: Path) -> None:
    one, other = copied(bert, tmp_path / "a" / "bert"), copied(bert, tmp_path / "b" / "bert")
    first = find({"model": str(one)})
    assert first.model == "bert"
    assert first.revision.startswith("sha256:")
    assert find({"model": str(other)}).revision == first.revision
    (other / "tokenizer_config.json").write_text("{}")
    assert find({"model": str(other)}).revision != first.revision


@pytest.mark.parametrize("model", ["./bret", "bret", "/nowhere/bert", "a/b/c", "../x", "~/bert"])
def test_a_wrong_path_is_said(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whatever lies beside the checkout
    assert f"'encoders.mine.model': no folder '{model}'; give a folder, or owner/name" in refused({"model": model})


def test_a_folder_has_no_revision(bert: Path) -> None:
    assert "leave it out" in refused({"model": str(bert), "revision": "main"})


def test_pickle_is_refused_though_it_is_harmless(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    assert find({"model": str(folder)})  # beside safetensors nobody reads it
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin is pickle, which can run code; save it as safetensors" in refused({"model": str(folder)})


def test_weights_of_an_inner_folder_may_not_be_pickle_either(tmp_path: Path) -> None:
    folder = networks.sentences(tmp_path)
    (folder / "2_Normalize" / "pytorch_model.bin").write_bytes(b"")
    said = refused({"model": str(folder)}, "sentence-transformers")
    assert "2_Normalize/pytorch_model.bin is pickle" in said


def test_a_half_downloaded_folder_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = copied(bert, tmp_path / "bert")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "model.safetensors is cut short or damaged; get it again" in refused({"model": str(folder)})
    weights.unlink()
    assert "no weights in safetensors" in refused({"model": str(folder)})
    save_file({"x": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    parts = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(parts))
    assert "model-00002-of-00002.safetensors is missing; get the model again" in refused({"model": str(folder)})


def test_a_model_of_another_kind_is_refused(bert: Path, tmp_path: Path) -> None:
    assert "has no open_clip_config.json" in refused({"model": str(bert)}, "open_clip")
    assert "reads text, no image" in refused({"model": str(bert), "modalities": ["image"]})
    (copied(bert, tmp_path / "x") / "config.json").write_text('{"model_type": "t5"}')
    assert "kind sentence-transformers may read it" in refused({"model": str(tmp_path / "x")})
    (tmp_path / "x" / "config.json").write_text("{")
    assert "config.json is no JSON object" in refused({"model": str(tmp_path / "x")})


def test_a_name_of_timm_is_a_repository(hub: Hub, tmp_path: Path) -> None:
    commit = hub.publish("timm/vit_tiny.mine", networks.timm(tmp_path / "vit"))
    source = find({"model": "vit_tiny.mine"}, "timm")
    assert (source.revision, source.model) == (commit, "timm/vit_tiny.mine")


# --- settings that change vectors, and one that does not


def test_a_repository_of_sentence_transformers_is_refused_by_kind_huggingface(hub: Hub, tmp_path: Path) -> None:
    folder = networks.sentences(tmp_path)
    hub.publish("someone/sentences", folder)
    for model in (str(folder), "someone/sentences"):
        said = refused({"model": model})
        assert f"'encoders.mine.kind': {model} has modules.json" in said
        assert said.endswith("take kind sentence-transformers")
    assert find({"model": "someone/sentences"}, "sentence-transformers").reads == ("text",)


def test_the_pooling_is_known_before_a_network_is_loaded(bert: Path, tmp_path: Path) -> None:
    assert find({"model": str(bert)}).pooling == "mean"
    assert find({"model": str(bert), "pooling": "cls"}).pooling == "cls"
    assert find({"model": str(networks.qwen(tmp_path / "qwen"))}).pooling == "last"
    clip = {"model": str(networks.clip(tmp_path / "clip"))}
    assert find(clip).pooling == ""
    assert "'encoders.mine.pooling' is of networks that read only texts" in refused({**clip, "pooling": "cls"})


@pytest.mark.parametrize(
    ("stored", "default", "taken"),
    [
        ({"query": "q", "document": "d", "passage": "p"}, "query", "d"),
        ({"query": "q", "document": "", "passage": "p"}, "query", "p"),
        ({"query": "q", "corpus": "c"}, None, "c"),
        ({"query": "q", "document": ""}, "query", "q"),
        ({"query": "q"}, None, ""),
        (["document"], None, ""),
    ],
)
def test_the_prompt_of_documents_is_taken(tmp_path: Path, stored: object, default: str | None, taken: str) -> None:
    folder = networks.sentences(tmp_path)
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text()) | {"prompts": stored, "default_prompt_name": default}
    path.write_text(json.dumps(config))
    kind = "sentence-transformers"
    assert find({"model": str(folder)}, kind).prompt == taken
    assert find({"model": str(folder), "prompt": ""}, kind).prompt == ""
    assert find({"model": str(folder), "prompt": "own"}, kind).prompt == "own"


def test_a_task_is_named_where_modules_take_it(tmp_path: Path) -> None:
    kind = "sentence-transformers"
    plain = networks.sentences(tmp_path / "plain")
    assert find({"model": str(plain)}, kind).task == ""
    routed = networks.routed(tmp_path / "routed")
    assert find({"model": str(routed)}, kind).task == "document"
    assert find({"model": str(routed), "task": ""}, kind).task == ""
    path = plain / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"document_length": 12}))
    assert find({"model": str(plain)}, kind).task == "document"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torch_dtype", "take precision"),
        ("trust_remote_code", "take key trust_remote_code"),
        ("pretrained_cfg", "leave it out"),
        ("checkpoint_path", "give the weights as model"),
    ],
)
@pytest.mark.parametrize("group", ["model", "processing"])
def test_options_do_not_replace_keys_or_load_other_files(bert: Path, group: str, name: str, hint: str) -> None:
    said = refused({"model": str(bert), "options": {group: {name: "x"}}})
    assert f"'encoders.mine.options.{group}': " in said
    assert f"no {name} here; {hint}" in said
