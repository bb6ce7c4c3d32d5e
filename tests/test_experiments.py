"""Every experiment runs on a tiny catalogue, reports its arms, and varies what it says it does.

The tests of what varies compare tensors: weights, features, splits and loss terms of the arms.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
import yaml
from open_clip import SimpleTokenizer
from safetensors.torch import load_file
from shop import featured, toy
from torch import Tensor
from typer import Typer
from typer.testing import CliRunner

from alignrec import schemas
from alignrec.commands.params import load
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import losses as pretraining_losses
from alignrec.pipeline.beit3.minilm import initialise_words
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.dataset.split import Split, pair_keys
from alignrec.pipeline.evaluation.benchmark.cell import Cell, CellLabel, Hidden, rankings_path
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.params import Graph, SemanticIds
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.inputs import Sampler, TrainingData
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments import added, ceilings, clip, contrast, exposure, filling, mapped, missing, shared, tiger
from experiments.masked_modelling import MaskedModelling, read_masked_task
from experiments.together import Encoder, bind_encoder
from experiments.variants import PROFILES, SETS

TRAIN = {"features": "beit3", "dim": 8, "batch_size": 512, "epochs": 2, "lr": 0.01}
PARAMS: dict[str, Any] = {
    "datasets": ["shop"],
    "sources": {"shop": {"kind": "sample", "users": 120, "items": 60}},
    "pretrain": {
        "size": "small",
        "codes": 16,
        "steps": 2,
        "batch_size": 8,
        "distill_from": ["tfidf"],
    },
    "encode": {"encoders": ["tfidf"]},
    "beit3": {"sets": ["beit3", "beit3-raw", "beit3-image-masked", "beit3-text-masked"]},
    "combine": {"sets": {}},
    "train": TRAIN,
    "benchmark": {"workers": 1, "ks": [5, 20]},
}
OPTIONS: dict[str, str] = {
    "added": "--seeds 2",
    "ceilings": "--features beit3",
    "clip": "--steps 2 --seeds 2",
    "exposure": "--protocol sparse --most-train 2 --draws 2 --budget 1 --model bpr --model ease",
    "generate": "--features random --features tfidf --users 30 --epochs 1 --seeds 1 --codes 8",
    "geometry": "--epoch 1 --epoch 2 --seeds 2",
    "joint": "--steps 4 --seeds 1",
    "longer": "--steps 1 --steps 3",
    "mapped": "--features beit3",
    "missing": "--features beit3 --ratio 0.5 --seeds 1",
    "single_pass": "--steps 0 --steps 2 --seeds 1",
    "variants": "--profile objective --steps 2 --seeds 1",
    "wrong": "--ratio 0.5 --ratio 1 --features beit3 --seeds 1",
}
REPORTED = {
    "added": ["| image | zero-shot |", "| text | zero-shot |"],
    "ceilings": ["| leaked | 100%", "| beit3 + image |"],
    "clip": ["| BEiT3, untrained |", "| CLIP, texts masked |", "can be found"],
    "exposure": ["Gini"],
    "generate": ["| random |", "| tfidf |", "most popular"],
    "geometry": ["| nothing | 1 |", "| uia | 2 |"],
    "joint": ["| staged |", "| joint, without MIM and MLM |", "CPU seconds"],
    "longer": ["| 1 |", "| 3 |"],
    "mapped": ["| beit3 |", "| beit3-mapped |"],
    "missing": ["| nothing |", "| image of 50% | zeros |", "| text of 50% | heat |"],
    "single_pass": ["| no pre-training |", "| 2 steps, no teachers |", "| 2 steps |"],
    "variants": ["| article, beit3-raw |"],
    "wrong": ["| nothing |", "| image of 100% |", "| noise of 50% |"],
}

pytestmark = pytest.mark.usefixtures("one_process")


@dataclass
class Trained:
    """A call of `fit`, and what it returned."""

    arguments: dict[str, Any]
    fitted: Fit

    @property
    def item(self) -> np.ndarray:
        assert isinstance(self.fitted.item, np.ndarray)
        return self.fitted.item

    def encoder(self) -> dict[str, Tensor]:
        """Return the weights of an encoder that was trained with the recommender."""
        state = self.fitted.state.items()
        return {k.removeprefix("network."): x for k, x in state if k.startswith("network.")}


@dataclass
class Experiment:
    """What an experiment printed, wrote and trained."""

    root: Path  # outputs
    folder: Path
    output: str = ""
    trained: list[Trained] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)  # the first seed of each arm
    later_cells: dict[str, Cell] = field(default_factory=dict)  # the last seed, if there are several

    @property
    def layout(self) -> Layout:
        return Layout(self.root, "shop")

    def branch(self, name: str) -> Layout:
        return Layout(self.folder / name, "shop")

    def features(self) -> dict[str, np.ndarray]:
        """Return the features that the recommender of each arm was trained on."""
        return {name: features_of(cell.data.read()) for name, cell in self.cells.items()}


@pytest.fixture(scope="module", autouse=True)
def few_targets() -> Iterator[None]:
    """Measure pre-training on the first masks, as drawing more takes longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_losses, "MIN_TARGETS", 1)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the outputs of all stages up to graph."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    params = load(folder / "params.yaml", "shop")
    before = ("download", "interactions", "items", "images", "encode")
    after = ("pretrain", "beit3", "combine", "graph")
    for name in (*before, *after):
        toy.run(name, params, folder / "outputs", item="tfidf" if name == "encode" else "")
    return folder


@pytest.fixture(scope="module")
def experiment(shop: Path, one_process: None) -> Callable[[str], Experiment]:
    """Run an experiment, once for all tests."""
    return cache(partial(run_experiment, shop))


def run_experiment(shop: Path, name: str) -> Experiment:
    module = import_module(f"experiments.{name}")
    ran = Experiment(shop / "outputs", shop / "outputs" / "experiments" / name)
    app = Typer()
    app.command()(module.main)
    files = ["--params", str(shop / "params.yaml"), "--root", str(shop / "outputs")]
    with pytest.MonkeyPatch.context() as patch:
        record_training(patch, module, ran)
        arguments = ["shop", *files, *OPTIONS[name].split()]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    ran.output = done.output
    return ran


def record_training(patch: pytest.MonkeyPatch, module: Any, ran: Experiment) -> None:
    """Note each call of `fit`, and each cell that is trained, on its way."""

    def recorded_fit(*args: Any, **keys: Any) -> Fit:
        fitted = fit(*args, **keys)
        arguments = inspect.signature(fit).bind(*args, **keys).arguments
        ran.trained.append(Trained(arguments, fitted))
        return fitted

    if hasattr(module, "fit"):
        patch.setattr(module, "fit", recorded_fit)
    if hasattr(module, "recalls"):
        original = module.recalls

        def recorded_recalls(trainings: Any, *args: Any) -> Any:
            for label, cell in trainings.items():
                cells = ran.cells if label.seed == 0 else ran.later_cells
                cells[label.features] = cell
            return original(trainings, *args)

        patch.setattr(module, "recalls", recorded_recalls)


def features_of(data: TrainingData) -> np.ndarray:
    assert data.features is not None
    return np.asarray(data.features)


def read_split(layout: Layout) -> Split:
    return inputs.read_inputs(layout, None).split


def train_keys(layout: Layout) -> np.ndarray:
    split = read_split(layout)
    return pair_keys(split.train, split.n_items)


def read_rankings(layout: Layout, *entries: CellLabel) -> list[np.ndarray]:
    paths = [rankings_path(layout, entry) for entry in entries]
    return [io.matrix(io.read_table(path, schemas.rankings(20))["items"]) for path in paths]


def equal_arms(arms: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return the pairs of arms with equal values."""
    return [(a, b) for a, b in combinations(arms, 2) if are_equal(arms[a], arms[b])]


def are_equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, atol=1e-6)


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_experiment_runs(experiment: Callable[[str], Experiment], name: str) -> None:
    if name == "generate":
        pytest.importorskip("cornac", reason="no extra installs Cornac")
    output = experiment(name).output
    assert [words for words in REPORTED[name] if words not in output] == []


def test_joint_training_moves_the_weights_that_cls_depends_on(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("joint")
    staged, joint, without, untrained = ran.trained
    assert staged.encoder() == untrained.encoder() == {}
    assert not are_equal(staged.arguments["features"], untrained.arguments["features"])

    encoder = Encoder(ran.branch("untrained-0"))
    before = encoder.network.state_dict()
    used = parameters_of_cls(encoder)
    assert len(used) > 100
    for trained in (joint, without):
        assert moved(before, trained.encoder()) >= used
    heads = {name for name in before if name.startswith(("mim_head.", "mlm_head."))}
    assert len(heads) > 2
    assert moved(before, joint.encoder()) >= heads
    assert moved(before, without.encoder()) & heads == set()


def test_only_joint_training_on_equal_terms_has_mim_and_mlm(
    experiment: Callable[[str], Experiment],
) -> None:
    staged, joint, without, untrained = experiment("joint").trained
    terms = {"bpr", "cca", "reg", "uia"}
    for trained in (staged, joint, without, untrained):
        assert {*trained.fitted.history[0]} >= terms
    has_masked = [{"mim", "mlm"} <= {*trained.fitted.history[0]} for trained in (staged, joint, without, untrained)]
    assert has_masked == [False, True, False, False]
    assert len({trained.arguments["params"].batch_size for trained in experiment("joint").trained}) == 1

    recall, cost = io.read_json(experiment("joint").root / "figures/shop/article-joint.json")
    assert [row[1] for row in recall["rows"]] == [row[0] for row in cost["rows"]]


def test_masked_modelling_takes_the_steps_of_pretraining(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("joint")
    encoder, masked = joint_encoder(ran.branch("untrained-0"), steps_of(ran))
    encoder.network.train()
    for _ in range(steps_of(ran)):
        torch.stack([*masked.terms().values()]).sum().backward()
        masked.step()

    staged = load_file(ran.branch("pre-trained-0").encoder.weights)
    for name, weights in encoder.network.state_dict().items():
        torch.testing.assert_close(weights, staged[name], rtol=1e-4, atol=1e-5)
    assert masked.terms() == {}  # all steps are taken


def steps_of(ran: Experiment) -> int:
    params = io.read_json(ran.branch("pre-trained-0").run_record("pretrain"))["params"]
    return int(params["steps"])


def joint_encoder(branch: Layout, steps: int, losses: bool = True) -> tuple[Encoder, MaskedModelling]:
    encoder = Encoder(branch)
    section = Pretrain(size="small", codes=16, steps=steps, batch_size=8, distill=0.0)
    task = read_masked_task(branch, section)
    return encoder, MaskedModelling(encoder.network, task, losses)


def parameters_of_cls(encoder: Encoder) -> set[str]:
    """Return the names of the parameters that CLS depends on."""
    cls = encoder.encode(np.arange(encoder.n_items))
    torch.manual_seed(0)
    (cls * torch.randn(cls.shape)).sum().backward()
    names = parameters_with_gradient(encoder)
    encoder.network.zero_grad()

    # softmax cancels the bias of keys, whose gradients are rounding errors
    return {name for name in names if not name.endswith(("k_proj.A.bias", "k_proj.B.bias"))}


def parameters_with_gradient(encoder: Encoder) -> set[str]:
    named = encoder.network.named_parameters()
    return {name for name, x in named if x.grad is not None and bool(x.grad.any())}


def joint_model(branch: Layout, **settings: Any) -> tuple[AlignRec, Encoder, Split]:
    """Return AlignRec without MIM and MLM on the branch's features, its encoder, and its split."""
    encoder, masked = joint_encoder(branch, steps=2, losses=False)
    split, features, edges = inputs.read_inputs(branch, "beit3-raw")
    table = torch.from_numpy(np.array(features))
    given = Inputs(split, table, edges, torch.device("cpu"))
    params = AlignRecParams.model_validate({**settings, "mode": "frozen", "dim": 8})
    torch.manual_seed(0)
    return bind_encoder(encoder, Graph(), masked)(given, params), encoder, split


@pytest.mark.parametrize("recipe", ["published", "fast"])
def test_joint_gradients_reach_the_encoder(
    experiment: Callable[[str], Experiment],
    recipe: str,
) -> None:
    branch = experiment("joint").branch("untrained-0")
    used = parameters_of_cls(Encoder(branch))

    model, encoder, split = joint_model(branch, recipe=recipe)
    model.start_epoch()
    drawn = torch.from_numpy(Sampler(split).epoch(np.random.default_rng(0)))
    terms = model.loss(Batch(*drawn))
    torch.stack([*terms.values()]).sum().backward()

    assert used - parameters_with_gradient(encoder) == set()


def test_joint_and_staged_training_start_from_equal_features(
    experiment: Callable[[str], Experiment],
) -> None:
    for start in ("pre-trained-0", "untrained-0"):
        branch = experiment("joint").branch(start)
        staged = featured.vectors(branch, "beit3-raw")
        np.testing.assert_allclose(Encoder(branch).encode_all(), staged, atol=1e-4)


def test_joint_training_ranks_by_the_encoder_that_it_trained(
    experiment: Callable[[str], Experiment],
) -> None:
    branch = experiment("joint").branch("untrained-0")
    with torch.no_grad():
        model, encoder, _ = joint_model(branch)
        model.eval()
        _, before = model()
        for parameter in encoder.network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        _, after = model()

    assert not torch.allclose(before, after)
    np.testing.assert_allclose(model.target, encoder.encode_all(), atol=1e-5)


def test_each_loss_is_left_out_of_one_geometry(experiment: Callable[[str], Experiment]) -> None:
    ran = experiment("geometry")
    names = ("nothing", "cca", "reg", "uia")
    firsts = dict(zip(names, ran.trained[::2], strict=True))
    for name, trained in firsts.items():
        terms = {loss: trained.fitted.history[0][loss] for loss in ("cca", "reg", "uia")}
        assert {loss for loss, value in terms.items() if value == 0} == {name} - {"nothing"}
    assert equal_arms({name: trained.item for name, trained in firsts.items()}) == []
    for first, second in zip(ran.trained[::2], ran.trained[1::2], strict=True):
        assert not are_equal(first.item, second.item)  # two seeds


def test_geometries_are_compared_at_equal_epochs(experiment: Callable[[str], Experiment]) -> None:
    ran = experiment("geometry")
    assert {len(trained.fitted.history) for trained in ran.trained} == {2}

    (table,) = io.read_json(ran.root / "figures" / "shop" / "article-geometry.json")
    epochs = [(row[0], row[1]) for row in table["rows"]]
    arms = ("nothing", "cca", "reg", "uia")
    assert epochs == [(arm, epoch) for arm in arms for epoch in ("1", "2")]
    measured = [row[2:] for row in table["rows"]]
    assert len({*map(tuple, measured)}) == len(epochs)
    recall = [trained.fitted.history[1]["valid_recall@20"] for trained in ran.trained[:2]]
    assert float(measured[1][0].split(" ±")[0]) == pytest.approx(np.mean(recall), rel=0.01)


def test_clip_and_beit3_are_trained_and_masked(experiment: Callable[[str], Experiment]) -> None:
    ran = experiment("clip")
    features = ran.features()
    assert equal_arms(features) == []

    second = {name: cell.data.read().features for name, cell in ran.later_cells.items()}
    for name, vectors in features.items():
        assert not are_equal(vectors, second[name])  # each seed trains the encoders

    image, text = np.split(features["CLIP"], 2, axis=1)
    blank = np.zeros_like(image)
    np.testing.assert_array_equal(features["CLIP, images masked"], np.hstack([blank, text]))
    np.testing.assert_array_equal(features["CLIP, texts masked"], np.hstack([image, blank]))
    for half in (image, text):
        assert len(np.unique(half.round(5), axis=0)) > 10

    branch = ran.branch("0")
    for name, shown in (("beit3-image-masked", ["text"]), ("beit3-text-masked", ["image"])):
        assert FeatureSet.of(branch, name).facts.reads == shown
    pretrained = load_file(branch.encoder.weights)
    drawn = load_file(branch.features("beit3-untrained") / "encoder" / branch.encoder.weights.name)
    assert moved(drawn, pretrained)


def test_the_power_of_a_test_follows_from_its_paired_errors() -> None:
    ours = np.array([1.0, 0.0, 1.0, 1.0])
    theirs = np.array([0.0, 0.0, 1.0, 0.0])
    (row,) = clip.power_table({"hits": (ours, theirs)}, 3).rows
    error = np.std(ours - theirs, ddof=1) / 2
    assert list(row) == ["hits", "4", "+0.5000", f"{error:.4f}", f"{2.8 * error:.4f}", f"{2.8 * error / 0.75:.0%}"]


def test_clip_starts_from_the_words_that_beit3_starts_from() -> None:
    encoder = SimpleTokenizer().encoder
    vocabulary = np.array([encoder[piece] for piece in ("dog</w>", "cat</w>")])
    torch.manual_seed(0)
    started = contrast.network(2, 8)
    drawn = started.token_embedding.weight.detach().clone()
    contrast.start_from_words(started, vocabulary)

    table = torch.nn.Embedding(2, contrast.WIDTH)
    table.weight.data.copy_(drawn)
    network = SimpleNamespace(beit3=SimpleNamespace(text_embed=table), config=SimpleNamespace(width=contrast.WIDTH))
    initialise_words(network, ["▁dog", "▁cat"])
    assert not torch.equal(drawn, started.token_embedding.weight)
    torch.testing.assert_close(started.token_embedding.weight.data, table.weight.data)


def test_a_pretrained_clip_is_encoded_by_name(shop: Path, tmp_path: Path) -> None:
    given = load(shop / "params.yaml", "shop")
    layout = Layout(shop / "outputs", "shop")
    model = networks.open_clip(tmp_path / "tiny")
    features = ["tfidf", f"tiny={model}"]
    vectors = clip.read_further(given, layout, tmp_path / "out", features)
    np.testing.assert_array_equal(vectors["tfidf"], featured.vectors(layout, "tfidf"))
    assert vectors["tiny"].shape == (57, 24)
    assert len(np.unique(vectors["tiny"].round(5), axis=0)) > 10


def test_variants_of_pretraining_differ_in_weights_and_vectors(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("variants")
    names = [*PROFILES["objective"]]
    branches = [ran.branch(f"objective/{name}") for name in names]
    recipe, article = (load_file(branch.encoder.weights) for branch in branches)
    assert moved(recipe, article)
    assert equal_arms(ran.features()) == []

    for name, branch in zip(names, branches, strict=True):
        for features in SETS:
            expected = featured.vectors(branch, features)
            np.testing.assert_array_equal(ran.features()[f"{name}, {features}"], expected)

    params = [io.read_json(branch.run_record("pretrain"))["params"] for branch in branches]
    assert [one["steps"] for one in params] == [2, 2]
    assert [one["distill"] > 0 for one in params] == [True, False]


def test_longer_runs_differ_in_weights_and_record_their_own_figures(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("longer")
    branches = {steps: ran.branch(steps) for steps in ("1", "3")}
    one, three = (load_file(branch.encoder.weights) for branch in branches.values())
    assert moved(one, three)

    (table,) = io.read_json(ran.root / "figures" / "shop" / "article-longer.json")
    rows = {row[0]: row for row in table["rows"]}
    assert [*rows] == ["linear", *branches]
    for steps, branch in branches.items():
        run_record = io.read_json(branch.run_record("pretrain"))
        assert (run_record["params"]["steps"], run_record["notes"]["step"]) == (int(steps), int(steps))

        figures = [run_record["notes"][key] for key in ("mim_accuracy", "mim_chance")]
        assert [float(cell) for cell in rows[steps][1:3]] == pytest.approx(figures, abs=1e-4)
        probes = io.read_json(branch.probes)
        asked = {"zero_shot": "hit@20", "item_cf": "hit@20", "content_knn": "recall@20", "cold_items": "recall@20"}
        # a shop so small has too few items to hide
        judged = [probes[name]["beit3"][figure] if "beit3" in probes[name] else "" for name, figure in asked.items()]
        for cell, figure in zip(rows[steps][6:], judged, strict=True):
            assert cell == "" == figure or float(cell) == pytest.approx(figure, abs=1e-4)
        assert all(rows[steps][6:9])


def test_a_single_pass_varies_pretraining_and_follows_time(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("single_pass")
    arms = ("no pre-training", "2 steps, no teachers", "2 steps")
    weights = {name: load_file(ran.branch(name).encoder.weights) for name in arms}
    for a, b in combinations(arms, 2):
        assert moved(weights[a], weights[b])
    params = [io.read_json(ran.branch(name).run_record("pretrain"))["params"] for name in arms]
    assert [one["distill"] > 0 for one in params[1:]] == [False, True]

    features = {name: trained.arguments["features"] for name, trained in zip(arms, ran.trained, strict=True)}
    assert equal_arms(features) == []
    np.testing.assert_array_equal(features["2 steps"], featured.vectors(ran.branch("2 steps"), "beit3"))

    rows = io.read_table(ran.layout.interactions, schemas.INTERACTIONS).to_pylist()
    times: dict[tuple[int, int], int] = {}
    for row in rows:
        if row["split"] == schemas.TRAIN:
            pair = row["user_id"], row["item_id"]
            times[pair] = min(row["timestamp"], times.get(pair, row["timestamp"]))
    (table,) = io.read_json(ran.root / "figures" / "shop" / "article-single-pass.json")
    for row, trained in zip(table["rows"], ran.trained, strict=True):
        assert float(row[2]) == pytest.approx(trained.fitted.valid["recall@20"], abs=1e-4)
        assert len(trained.fitted.history) == 1
        sampler = trained.arguments["sampler"](trained.arguments["split"])
        users, items, _ = sampler.epoch(np.random.default_rng(0)).tolist()
        seen = [times[pair] for pair in zip(users, items, strict=True)]
        assert seen == sorted(seen)


def test_a_filling_changes_items_that_lack_the_modality_only(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("missing")
    features = ran.features()
    assert equal_arms(features) == []
    whole = featured.vectors(ran.layout, "beit3")
    np.testing.assert_array_equal(features[missing.WHOLE], whole)

    hidden = Hidden("image", 0.5, seed_for("mask", "shop")).rows(len(whole))
    has_image = np.array([image is not None for image in read_images(ran.layout)])
    lacks = hidden | ~has_image
    for name in filling.FILLINGS:
        np.testing.assert_array_equal(features[f"image of 50%: {name}"][~lacks], whole[~lacks])
    masked = featured.vectors(ran.layout, "beit3-image-masked")
    zeros = features["image of 50%: zeros"]
    np.testing.assert_allclose(zeros[lacks], masked[lacks], atol=1e-6)
    np.testing.assert_array_equal(missing.read_without(ran.layout, "beit3", "image"), masked)


def test_fillings_follow_their_equations() -> None:
    edges = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]  # a path of four items
    graph = sp.csr_array(np.array(edges, np.float32))
    vectors = np.array([[8.0], [4.0], [2.0], [7.0]], np.float32)
    lacks = np.array([False, True, False, True])
    filled = {name: filling.fill_missing(name, graph, vectors, lacks)[:, 0] for name in filling.FILLINGS}
    for values in filled.values():
        np.testing.assert_array_equal(values[~lacks], vectors[~lacks, 0])

    np.testing.assert_array_equal(filled["zeros"][lacks], [0, 0])
    np.testing.assert_allclose(filled["neighbours' mean"][lacks], [(8 + 2) / 2, 2])
    root = np.sqrt(2)
    step = np.array([[0, 1 / root, 0, 0], [1 / root, 0, 0.5, 0], [0, 0.5, 0, 1 / root], [0, 0, 1 / root, 0]])
    known = np.where(lacks, 0, vectors[:, 0])
    np.testing.assert_allclose(filled["several hops"][lacks], (step @ known)[lacks], rtol=1e-5)
    ranked = known
    for _ in range(filling.HOPS):
        ranked = 0.9 * step @ ranked + 0.1 * known
    np.testing.assert_allclose(filled["personalised PageRank"][lacks], ranked[lacks], rtol=1e-5)
    values, directions = np.linalg.eigh(step)
    heat = directions @ np.diag(np.exp(filling.HEAT * (values - 1))) @ directions.T @ known
    np.testing.assert_allclose(filled["heat"][lacks], heat[lacks], rtol=1e-4)


def test_the_copurchase_graph_is_of_train(experiment: Callable[[str], Experiment]) -> None:
    split = read_split(experiment("missing").layout)
    bought = np.zeros((split.n_users, split.n_items))
    bought[split.train.users, split.train.items] = 1
    together = bought.T @ bought
    np.fill_diagonal(together, 0)
    graph = filling.copurchase_graph(split, neighbours=3).toarray()
    np.testing.assert_array_equal(graph, graph.T)
    assert not graph[together == 0].any()
    assert ((graph > 0).sum(1) >= np.minimum(3, (together > 0).sum(1))).all()
    wide = filling.copurchase_graph(split, neighbours=split.n_items).toarray()
    np.testing.assert_array_equal(wide > 0, together > 0)


def test_planted_products_are_the_chances_of_a_shopper_who_has_one_item_to_pick_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path, "shop")
    planted = {"category": [0, 0, 0, 1], "subcategory": [0, 0, 1, 2], "colour": [0, 1, 0, 0], "look": [0, 1, 0, 2]}
    asins = [f"A{i}" for i in range(4)]
    pq.write_table(pa.table({"asin": asins} | planted), tmp_path / "planted.parquet")
    monkeypatch.setattr(ceilings, "PREFERENCES", tmp_path / "planted.parquet")
    kept = pa.table({"item_id": pa.array([0, 1, 2], pa.int32()), "asin": ["A3", "A0", "A2"]})
    io.write_table(kept, layout.item_ids, schemas.ITEM_IDS)

    x, text, image = ceilings.planted_sets(layout).values()
    theme, look, _ = ceilings.MOTIVES
    # a category of three, a look of two, a colour of three
    a0_a2 = ceilings.COARSE * theme / 3 + look / 2 + ceilings.COARSE * look / 3
    a3_a0 = ceilings.COARSE * look / 3
    np.testing.assert_allclose((x @ x.T)[[1, 0, 0], [2, 1, 2]], [a0_a2, a3_a0, a3_a0], rtol=1e-5)
    np.testing.assert_array_equal(text + image, x)
    assert not (text * image).any()

    pq.write_table(pa.table({"asin": asins[:3]} | {name: of[:3] for name, of in planted.items()}), ceilings.PREFERENCES)
    with pytest.raises(UserError, match="shop is not the embedded dataset"):
        ceilings.planted_sets(layout)


def test_shares_are_of_the_way_to_what_is_planted_and_of_what_planted_modalities_add() -> None:
    hits = {"chance": 0.1, "planted": 0.5, "planted-image-masked": 0.45, "planted-text-masked": 0.3, "linear": 0.4,
            "beit3": 0.3, "beit3-image-masked": 0.28}  # fmt: skip
    shares = ceilings.shares_between(hits, "chance", "planted")
    assert [round(shares[name], 2) for name in ("chance", "linear", "beit3")] == [0, 0.75, 0.5]
    added = ceilings.shares_of_modalities(hits)
    assert {name: round(share, 2) for name, share in added.items()} == {
        "planted + image": 1, "beit3 + image": 0.4, "planted + text": 1
    }  # fmt: skip


def test_the_leak_knows_more_than_train_interactions(shop: Path) -> None:
    layout = Layout(shop / "outputs", "shop")
    split = read_split(layout)
    bought = np.zeros((split.n_users, split.n_items))
    user, item = shared.read_probe_data(layout).columns("user_id", "item_id")
    bought[user, item] = 1
    in_train = user_item_matrix(split.train.users, split.train.items, split.n_items)

    leaked = ceilings.leaked_factors(layout, 0)
    assert explained(leaked, bought) > explained(ceilings.collaborative_factors(in_train, 128, 0), bought)


def test_a_share_added_is_that_of_the_truth(experiment: Callable[[str], Experiment]) -> None:
    ran = experiment("added")
    weights = [load_file(ran.branch(seed).encoder.weights) for seed in ("0", "1")]
    assert moved(*weights)

    rng = np.random.default_rng(0)
    base = rng.random(400)
    figures = {"0 ": base + 0.2, "1 ": base + 0.4, "planted ": base + 1.0}
    figures |= {f"{name} image": base for name in ("0", "1", "planted")}
    result = added.share_added(figures, "image", seeds=2, seed=1)
    assert result is not None
    share, low, high = result
    assert share == pytest.approx(0.3)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.4))  # networks are drawn too
    figures["1 "] = base + 0.2
    noisy = {name: values + rng.normal(0, 0.5, 400) for name, values in figures.items()}
    result = added.share_added(noisy, "image", seeds=2, seed=1)
    assert result is not None
    share, low, high = result
    assert low < share < high
    assert high - low > 0.02  # cases are drawn too
    assert added.share_added(figures | {"planted ": base}, "image", seeds=2, seed=1) is None


def test_generators_are_trained_on_codes_of_their_features(shop: Path) -> None:
    layout = Layout(shop / "outputs", "shop")
    ids = SemanticIds(levels=3, codes=8)
    codes = {name: tiger.code_all_items(layout, name, ids, 0) for name in ("random", "tfidf", "beit3")}
    assert equal_arms({name: code.astype(float) for name, code in codes.items()}) == []
    for code in codes.values():
        assert code.shape == (57, 3)
        assert 0 <= code.min() < code.max() < 8


def test_the_next_item_is_the_last_in_time_and_not_one_that_was_bought(shop: Path) -> None:
    layout = Layout(shop / "outputs", "shop")
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS).to_pylist()
    latest = {}
    for row in sorted(rows, key=lambda row: (row["timestamp"], row["item_id"])):
        latest[row["user_id"]] = row["item_id"]
    histories = tiger.draw_histories(layout, 1000)
    assert Counter(history[-1] for history in histories) <= Counter(latest.values())
    assert {len(history) == len({*history}) for history in histories} == {True}

    ranking = np.arange(40)
    hits = tiger.hit_last_items([ranking] * 3, [[0, 1, 21], [0, 1, 22], [5, 3]])
    assert hits.tolist() == [1, 0, 1]  # 20 items follow the two that were bought


def test_generated_items_differ_by_codes(shop: Path) -> None:
    pytest.importorskip("cornac", reason="no extra installs Cornac")
    layout = Layout(shop / "outputs", "shop")
    ids = SemanticIds(levels=3, codes=8)
    histories = tiger.draw_histories(layout, 20)
    rankings = {}
    for name in ("random", "tfidf"):
        codes = tiger.code_all_items(layout, name, ids, 0)
        ranked = tiger.rank_items(codes, ids, histories, epochs=1, seed=1)
        rankings[name] = np.stack(ranked).astype(float)
    assert equal_arms(rankings) == []


def test_a_generator_without_its_library_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cornac.models", None)
    with pytest.raises(UserError, match=r"pip install cornac==3\.0\.1"):
        tiger.import_library("models")


def test_wrong_content_is_that_of_other_items(experiment: Callable[[str], Experiment]) -> None:
    ran = experiment("wrong")
    features = ran.features()
    assert equal_arms(features) == []
    right = featured.vectors(ran.layout, "beit3")
    np.testing.assert_array_equal(features["nothing"], right)

    hidden = Hidden("", 0.5, seed_for("mask", "shop")).rows(len(right))
    for what in ("image", "text", "noise"):
        half, whole = features[f"{what} of 50%"], features[f"{what} of 100%"]
        np.testing.assert_array_equal(half, np.where(hidden[:, None], whole, right))
        assert (whole != right).any(axis=1).mean() > 0.9

    layout, image, text = ran.layout, ran.branch("beit3/image"), ran.branch("beit3/text")
    assert read_texts(image) == read_texts(layout)
    assert read_images(text) == read_images(layout)
    assert_reordered(read_images(image), read_images(layout))
    assert_reordered(read_texts(text), read_texts(layout))


def read_texts(layout: Layout) -> list[str]:
    texts: list[str] = io.read_table(layout.items, schemas.ITEMS)["text"].to_pylist()
    return texts


def read_images(layout: Layout) -> list[bytes | None]:
    images = list[bytes | None]()
    for path in io.shards(layout.images, "images"):
        images += io.read_table(path, schemas.IMAGES)["image"].to_pylist()
    return images


def assert_reordered(wrong: Sequence[Any], right: Sequence[Any]) -> None:
    assert Counter(wrong) == Counter(right)
    differ = [a != b for a, b in zip(wrong, right, strict=True)]
    assert np.mean(differ) > 0.9


def test_exposure_is_measured_on_the_split_that_was_asked_for(
    experiment: Callable[[str], Experiment],
) -> None:
    ran = experiment("exposure")
    branch = ran.branch("sparse-2")
    drawn = [train_keys(layout) for layout in branch.draws()]
    assert len(drawn) == 2
    assert not np.array_equal(*drawn)
    for layout in branch.draws():
        assert np.bincount(read_split(layout).train.users).max() == 2
    assert np.bincount(read_split(ran.layout).train.users).max() > 2

    bpr, ease = read_rankings(branch, CellLabel("bpr", "none", 0), CellLabel("ease", "none", 0))
    assert not np.array_equal(bpr, ease)


def test_exposure_is_of_what_was_deployed_and_counts_new_items() -> None:
    defaults = inspect.signature(exposure.main).parameters
    assert defaults["model"].default == ["lightgcn", "bm3-improved", "alignrec"]
    assert "cold-items" in defaults["protocol"].default

    row = {"slice": "popularity", "metric": "recall", "label": "cold"}
    assert exposure.name_measure(row) == "Recall@20 of new items"
    assert "new items" in exposure.name_measure(row | {"metric": "exposure"})
    assert "tenth 3" in exposure.name_measure(row | {"label": "3"})

    groups = [("catalogue", "all"), ("popularity", "10"), ("popularity", "2"), ("history", "3"), ("history", "1")]
    rows = [{"slice": name, "label": label} for name, label in groups]
    assert sorted(rows, key=exposure.place_row) == rows[::-1]
    assert exposure.name_measure(row | {"label": "3", "metric": "exposure"}) == ""


def test_the_gini_coefficient_is_of_how_often_items_are_shown() -> None:
    # two places of one item, one each of two, none of the other three: sorted 0 0 0 1 1 2
    assert exposure.gini(np.array([1, 0, 2, 0, 1, 0])) == pytest.approx((1 * 1 + 3 * 1 + 5 * 2) / (6 * 4))


def test_exposure_refuses_an_option_without_effect(shop: Path) -> None:
    params = load(shop / "params.yaml", "shop")
    for protocol, option in (("mmrec", "draws"), ("cold-items", "most_train")):
        flag = option.replace("_", "-")
        with pytest.raises(UserError, match=f"--{flag}: has no effect on protocol '{protocol}'"):
            exposure.divide(params, protocol, **{option: 3})


def test_mapped_vectors_learn_from_train_interactions_but_those_of_hidden_items(shop: Path) -> None:
    layout = Layout(shop / "outputs", "shop")
    data = shared.read_probe_data(layout)
    x = shared.read_vectors(layout, "beit3")
    hidden = np.arange(0, len(x), 3)
    learned, blind = (mapped.map_to_factors(x, data, 0, cold) for cold in (hidden[:0], hidden))

    split = read_split(layout)
    bought = np.zeros((split.n_users, split.n_items))
    bought[split.train.users, split.train.items] = 1
    assert explained(learned, bought) > explained(x, bought)
    assert explained(learned[hidden], bought[:, hidden]) > explained(blind[hidden], bought[:, hidden])


def test_factors_are_the_leading_right_singular_vectors() -> None:
    rng = np.random.default_rng(0)
    bought = rng.random((60, 40)) < 0.2
    bought[:, :3] = False  # items without train interactions
    scaled = bought / np.sqrt(np.maximum(1, np.outer(bought.sum(axis=1), bought.sum(axis=0))))
    exact = np.linalg.svd(scaled)[2][:5].T

    factors = ceilings.collaborative_factors(user_item_matrix(*np.nonzero(bought), 40), 5, 0)
    assert not factors[:3].any()
    np.testing.assert_allclose(np.abs((factors * exact).sum(axis=0)) / np.sqrt(37), 1, atol=1e-9)


def test_the_map_has_the_least_squared_error_and_weight() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 6)) * [9, 3, 1, 1, 0.1, 0] + 5).astype(np.float32)
    y = rng.normal(size=(50, 3))
    fitted = mapped.fit_ridge(x, y, 0.5)
    centred = x - x.mean(axis=0, dtype=np.float64)
    penalty = 0.5 * centred.var(axis=0).mean() * len(x)
    rows = np.vstack([centred, np.sqrt(penalty) * np.eye(6)])  # ridge is least squares with these rows beside
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((6, 3))]), rcond=None)[0]
    np.testing.assert_allclose(fitted.map, expected, atol=1e-6)
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0), rtol=1e-6)


def explained(vectors: np.ndarray, bought: np.ndarray) -> float:
    """Return the correlation of cosines between items with those of their train interactions."""
    above = np.triu_indices(len(vectors), 1)
    cosines = [unit_rows(x) @ unit_rows(x).T for x in (vectors, bought.T)]
    return float(np.corrcoef(*(matrix[above] for matrix in cosines))[0, 1])


def unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def test_every_experiment_has_a_test() -> None:
    folder = Path(__file__).parents[1] / "experiments"
    scripts = [path.stem for path in folder.glob("*.py") if "typer.run" in path.read_text()]
    assert sorted(scripts) == sorted([*OPTIONS, "identify"])
