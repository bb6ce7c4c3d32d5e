"""Measurements on held-out items, and the map of the summary to features. Letters: B batch, D width."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alignrec.pipeline.beit3.mini import Mini, Network, centre_halves, fit_halves, fit_ridge
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.ops.linalg import Whitening, fit_pca, fit_whitening
from alignrec.pipeline.pretrain.corpus import Rates, Task, make_batch, micro_batches
from alignrec.pipeline.pretrain.losses import PretrainingModel, cross_entropy, predict_masked

MOST = 50_000  # items that the map of the summary is fitted to, at most
NO_MASKING = Rates(0, 0, 0, 0)
FIRST = 2000  # items that the teachers' head of `mini` is fitted to, at most
ENOUGH, MOST_DRAWS = 1000, 32  # targets of either kind and draws of masks in the last measurement


@torch.no_grad()
def measure_masked(network: Network, task: Task, draws: int = 1) -> dict[str, float | None]:
    """Return loss and accuracy on masked tokens of held-out items, with the same masks at every call.

    For `mim` and `mlm` each, None without targets: `_held_out_loss`, mean cross-entropy; `_accuracy`; `_chance`, the
    accuracy of always predicting the most frequent token of train items; `_rare_accuracy`, that on all other tokens.
    Masks are drawn up to `draws` times, until there are ENOUGH targets of either kind.
    """
    rates = task.rates._replace(hidden=0.0)
    # whether each prediction is right, bool [n], the targets [n], and the summed loss
    outcomes: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {"mim": [], "mlm": []}
    for draw in range(draws):
        seed = seed_for(task.seed, "held out masks", *([draw] if draw else []))
        for rows in _micro_batches(task, task.corpus.lengths_of_items[task.held_out]):
            step = make_batch(task, task.held_out[rows], rates, seed)
            with autocast(task):
                scores = predict_masked(network, step, task.mask_id)
            for term, logits, target in (
                ("mim", scores.patches, step.codes[step.patch_mask]),
                ("mlm", scores.pieces, step.inputs.ids[step.piece_mask]),
            ):
                outcomes[term].append((logits.argmax(1) == target, target, cross_entropy(logits, target)))
        counts = [sum(len(target) for _, target, _ in parts) for parts in outcomes.values()]
        if all(count >= ENOUGH for count in counts if count):
            break
    figures = {term: _summarise_outcomes(parts, task.most_frequent[term]) for term, parts in outcomes.items()}
    return {f"{term}_{name}": value for term, values in figures.items() for name, value in values.items()}


@torch.no_grad()
def measure_cosine(model: PretrainingModel, task: Task) -> float | None:
    """Return the mean cosine of the held-out items' predicted and actual teacher vectors; None without teachers."""
    if model.teacher is None or task.target is None:
        return None
    target = torch.from_numpy(task.target[task.held_out]).to(task.device)
    known = target.any(dim=1)
    if not known.any():
        return None
    cls = torch.from_numpy(encode_items(model.network, task, task.held_out)).to(task.device)
    read = model.teacher(model.whitening.read(cls[known]))
    return round(float(F.cosine_similarity(read, target[known], dim=1).mean()), 6)


def _summarise_outcomes(parts: list[tuple[Tensor, Tensor, Tensor]], frequent: int) -> dict[str, float | None]:
    names = ("held_out_loss", "accuracy", "chance", "rare_accuracy")
    if not sum(len(target) for _, target, _ in parts):
        return dict.fromkeys(names)
    right, target = torch.cat([part[0] for part in parts]).double(), torch.cat([part[1] for part in parts])
    loss = sum(float(part[2]) for part in parts)
    common = (target == frequent).double()
    rare = 1 - common
    of_rare = float((right * rare).sum() / rare.sum().clamp(min=1))
    values = (loss / len(target), float(right.mean()), float(common.mean()), of_rare)
    return {name: round(value, 6) for name, value in zip(names, values, strict=True)}


def fit_map(network: Network, task: Task, teacher: np.ndarray | None) -> Whitening:
    """Fit the map of the summary to features on at most MOST train items.

    `teacher`, float32 [D, W], is the trained map to the teachers, which `mini` fits again. It is reduced by PCA.
    """
    sample = np.random.default_rng(seed_for(task.seed, "whitening")).permutation(task.train)[:MOST]
    x = encode_items(network, task, sample := np.sort(sample))
    if not isinstance(network, Mini):
        white = fit_whitening(x)
    elif teacher is None or task.target is None:
        return fit_halves(x)
    else:
        white = fit_ridge(x, np.asarray(task.target[sample]))
        x, teacher = centre_halves(torch.from_numpy(x), torch.from_numpy(white.mean)).numpy(), white.map
    if teacher is None:
        return white
    return Whitening(white.mean, teacher @ fit_pca(lambda: [x @ teacher], network.config.width, power=0).map)


@torch.no_grad()
def start_head(model: PretrainingModel, task: Task) -> None:
    """Initialise the teachers' head of `mini` by ridge regression on the untrained network."""
    if model.teacher is None or task.target is None:
        return
    items = np.sort(np.random.default_rng(seed_for(task.seed, "head")).permutation(task.train)[:FIRST])
    first = fit_ridge(encode_items(model.network, task, items), np.asarray(task.target[items]))
    model.whitening.mean.copy_(torch.from_numpy(first.mean))
    model.teacher.weight.copy_(torch.from_numpy(first.map.T))
    model.teacher.bias.zero_()


@torch.no_grad()
def encode_items(network: Network, task: Task, items: np.ndarray) -> np.ndarray:
    """Return the summary of each item, unmasked and averaged over all parts of its text: float32 [n, D]."""
    parts, owner, share = task.corpus.all_parts(items)
    out = np.zeros((len(items), network.summary_width), np.float32)
    for rows in _micro_batches(task, task.corpus.lengths[parts]):
        inputs = make_batch(task, items[owner[rows]], NO_MASKING, 0, parts[rows]).inputs
        summaries = network.summary(*inputs).float().cpu().numpy()
        np.add.at(out, owner[rows], share[rows, None] * summaries)
    return out


def autocast(task: Task) -> torch.autocast:
    return torch.autocast(task.device.type, torch.bfloat16, enabled=task.params.precision == "bfloat16")


def _micro_batches(task: Task, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions of inputs of int64 [n] tokens that the network reads at a time."""
    size = max(1, task.params.batch_size // task.params.accumulate)
    for start in range(0, len(lengths), size):
        places = np.arange(start, min(start + size, len(lengths)))
        yield from micro_batches(places, lengths[places])
