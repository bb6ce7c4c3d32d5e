"""Parameters are closed and typed, and errors name the key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toyproject

from alignrec.commands import params
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.encoders.settings import SETTINGS
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import ABLATED, MODELS
from alignrec.pipeline.models.settings import PARAMS

ROOT = Path(__file__).parents[2]
KINDS = """
encoders:
  a: {kind: huggingface, model: google/siglip2-base-patch16-224, join: concat}
  b: {kind: sentence-transformers, model: Qwen/Qwen3-VL-Embedding-2B, prompt: "Represent the product.", dim: 512}
  c: {kind: open_clip, model: hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K}
  d: {kind: timm, model: vit_base_patch14_dinov2.lvd142m}
combine: {sets: {e: {kind: concat, of: [b, d]}}}
"""
GOOD = "datasets: [shop]\nsources: {shop: {kind: sample}}\n"


def load(tmp_path: Path, text: str) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def test_the_products_params_are_valid() -> None:
    assert params.load(toyproject.shipped() / "params.yaml").datasets == ["sample"]


def test_defaults_are_the_published_settings(tmp_path: Path) -> None:
    train = load(tmp_path, GOOD).train.resolved()
    assert (train.dim, train.layers, train.item_layers, train.batch_size) == (64, 2, 1, 2048)
    assert (train.lr, train.lr_decay, train.cca, train.reg, train.uia, train.l2) == (5e-4, 0.96, 0.01, 0.1, 0.1, 1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "train: {lrr: 0.1}", "unknown key 'train.lrr'; did you mean 'lr'?"),
        (GOOD + "train: {lr: -1.0}", "'train.lr': input should be greater than 0, found -1.0"),
        (GOOD + "benchmark: {overrides: {bpr: {gate: false}}}", "unknown key 'benchmark.overrides.bpr.gate'; valid: "),
        (GOOD + "benchmark: {overrides: {bm3: {layer: 1}}}", "'benchmark.overrides.bm3.layer'; did you mean 'layers'?"),
        (GOOD + "benchmark: {ablations: {x: {gat: 1}}}", "'benchmark.ablations.x.gat'; did you mean 'gate'?"),
        (GOOD + "encode: {settings: {}}", "unknown key 'encode.settings'; valid: encoders, engine, "),
        (GOOD + "items: {text: [title, title]}", "'items.text': value error, a field is named twice"),
        (GOOD + "encode: {encoders: [bert]}", "'encode.encoders': no 'bert'"),
        (GOOD + "encoders: {vit: {model: x}}", "'encoders.vit.kind' is required; valid: minilm, "),
        (GOOD + "encoders: {vit: {kind: tim, model: x}}", "'encoders.vit.kind': no 'tim'; did you mean 'timm'?"),
        (GOOD + "encoders: {a: {kind: huggingface, model: x, join: sum}}", "'encoders.a.join': input should be 'mean'"),
        (
            GOOD + "encoders: {beit3-untrained: {max_tokens: 9}}",
            "its settings are those of section beit3; give them th",
        ),
        (GOOD + "encoders: {cnn: {kind: timm, model: x}}", "'cnn' is a kind itself; choose another name"),
        (GOOD + "encode: {encoders: [beit3]}", "is encoded by what `pretrain` makes; list it in beit3.sets"),
        (GOOD + "encoders:\n  a: {kind: timm, model: x}\n  a: {kind: timm, model: y}", "key 'a' stands here twice"),
        (GOOD + "encode: {encoders: [cnn, cnn]}", "'encode.encoders': 'cnn' is listed twice"),
        ("datasets: [shop]\nsources: {shop: {kind: amazon}}", "'sources.shop.kind': no 'amazon'; did you mean 'ama"),
        ("datasets: [shop]\nsources: {shop: {kind: sample, itms: 9}}", "'sources.shop.itms'; did you mean 'items'?"),
        (
            "datasets: [shop]\nsources: {shop: {kind: amazon2014, metadata: a}}",
            "reviews: give either an address",
        ),
        (
            "datasets: [shop]\nsources: {shop: {kind: tabular, interactions: a.csv, columns: {usr: a}}}",
            "unknown key 'sources.shop.columns.usr'; did you mean 'user'?",
        ),
        (GOOD + "publish: {features: [beit4]}", "'publish.features': no 'beit4'; did you mean 'beit3'?"),
        (
            GOOD + "encode: {encoders: [minilm]}\nbeit3: {sets: []}\ncombine: {sets: {}}\ntrain: {features: beit3}",
            "'train.features': no 'beit3'; valid: minilm",
        ),
        ("datasets: [shpo]\nsources: {shop: {kind: sample}}", "no dataset 'shpo'"),
        (GOOD + "study: {sweeps: {x: {train.lr: [0.1, -1.0]}}}", "'study.sweeps.x.train.lr': input should be greater"),
        (GOOD + "study: {sweeps: {x: {lr: [0.1]}}}", "'study.sweeps.x': value error, 'lr' is no key of"),
        ("datasets: [../x]\nsources: {}", "'datasets.0'"),
        ("datasets: [", "not YAML"),
        ("- 1", "params.yaml"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as e:
        load(tmp_path, text)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_released_encoders_keep_their_names(tmp_path: Path) -> None:
    released = {name: {"kind": "released", "model": "older", "encoder": name} for name in ("tfidf", "beit3")}
    text = f"encoders: {released}\nencode: {{encoders: [tfidf, beit3]}}\nbeit3: {{sets: []}}\n"
    given = load(tmp_path, GOOD + text)
    assert DeclaredSets(given, "shop").without_controls() == ["tfidf", "beit3", "linear"]


def test_imported_feature_sets_count_as_made(tmp_path: Path) -> None:
    source = "{kind: mmrec, interactions: a.inter, features: {theirs: f.npy}}"
    text = (
        f"datasets: [shop]\nsources: {{shop: {source}}}\ntrain: {{features: theirs}}\npublish: {{features: [theirs]}}\n"
    )
    made = params.for_dataset(load(tmp_path, text), "shop")
    assert DeclaredSets(made, "shop").names() == ["theirs", "random", "shuffled", "constant"]
    with pytest.raises(UserError, match=r"train\.features"):  # each dataset that is built needs it
        load(tmp_path, text.replace("[shop]", "[shop, other]").replace("{shop:", "{other: {kind: sample}, shop:"))


def test_without_an_item_file_combinations_of_imported_sets_remain(tmp_path: Path) -> None:
    sets = "{linear: {}, both: {kind: concat, of: [a, b]}, mixed: {kind: concat, of: [a, cnn]}}"
    source = "{kind: mmrec, interactions: x.inter, features: {a: a.npy, b: b.npy}}"
    text = f"datasets: [shop]\nsources: {{shop: {source}}}\n"
    text += f"combine: {{sets: {sets}, controls: []}}\n"
    made = params.for_dataset(load(tmp_path, text), "shop")
    assert DeclaredSets(made, "shop").names() == ["a", "b", "linear", "both"]
    assert (made.encode.encoders, made.train.features) == ([], "linear")


def test_parameters_do_without_what_networks_need(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        GOOD + "train: {lr: 0.1}\nencode: {encoders: [a, b, c, d, minilm-cnn]}\nbeit3: {sets: []}\n" + KINDS
    )
    code = f"""
import sys
from pathlib import Path
from alignrec.commands.params import load, read
for how, without in ((read, {{"torch"}}), (load, {{"transformers", "sentence_transformers", "open_clip", "timm"}})):
    how(Path({str(path)!r}))
    assert not without & sys.modules.keys(), how
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


WRONG = {
    "train: {lrr: 1}": "unknown key 'train.lrr'",
    "images: {sise: 1}": "unknown key 'images.sise'",
    "encoders: {a: {kind: timm, model: x, dim: 3}}": "unknown key 'encoders.a.dim'",
    "encoders: {a: {kind: huggingface, model: x, precision: bf16}}": "'encoders.a.precision'",
    "encoders: {a: {kind: sentence-transformers, model: x, join: sum}}": "'encoders.a.join'",
    "encoders: {a: {kind: open_clip}}": "'encoders.a.model'",
    "encoders: {cnn: {stage: 8}}": "'encoders.cnn.stage'",
    "benchmark: {overrides: {l3ae: {distill: 1}}}": "unknown key 'benchmark.overrides.l3ae.distill'",
    "search: {spaces: {bm3: {dropp: {low: 0.1, high: 0.2}}}}": "unknown key 'search.spaces.bm3.dropp'",
}
WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from alignrec.commands import params
from alignrec.pipeline.io.errors import UserError
for path in sys.argv[1:]:
    try:
        params.load(Path(path))
    except UserError as e:
        print(e)
"""


def test_errors_come_before_torch_is_loaded(tmp_path: Path) -> None:
    for number, text in enumerate(WRONG):
        (tmp_path / f"{number}.yaml").write_text(f"{GOOD}{text}\n")
    command = [sys.executable, "-c", WITHOUT_TORCH, *(f"{number}.yaml" for number in range(len(WRONG)))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for line, says in zip(done.stdout.splitlines(), WRONG.values(), strict=True):
        assert says in line


def test_settings_that_are_checked_early_are_those_of_the_encoders() -> None:
    assert {kind: ENCODERS[kind].params for kind in SETTINGS} == SETTINGS


def test_parameters_that_are_checked_early_are_those_of_the_recommenders() -> None:
    declared = {name: MODELS[name].Params for name in MODELS.built_in if name != ABLATED}
    assert declared == PARAMS
