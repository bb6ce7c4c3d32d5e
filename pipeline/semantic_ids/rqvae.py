"""RQ-VAE: an encoder and a decoder whose narrow vector is coded by residual codebooks (TIGER, arXiv 2305.05065).

Trained by torch, on a GPU where there is one; NumPy computes codes, equal on every device.
b vectors of a batch, F width, D width of the narrow vector, L levels, K codes a level.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.base import Positive, Rate, Section, Weight
from pipeline.errors import UserError
from pipeline.ops.arrays import Tensors, tensor
from pipeline.ops.device import one_thread, pick, sent
from pipeline.ops.linalg import limited
from pipeline.semantic_ids import kmeans
from pipeline.semantic_ids.base import Method, Progress, Shape, Vectors, enough, same_width, silent
from pipeline.semantic_ids.residual_kmeans import ResidualKMeans, ResidualKMeansParams

MOST_LAYERS = 16


class RQVAEParams(Section):
    """Settings of the RQ-VAE."""

    hidden: list[Positive] = Field(default_factory=lambda: [256], max_length=MOST_LAYERS - 1)
    """widths between F and D; the decoder reverses them"""
    width: Positive = 64
    """D"""
    commitment: Weight = 0.25
    """weight of the loss that keeps the narrow vector near its codes"""
    epochs: Positive = 60
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """share of the epochs, rounded down, without codes; then codebooks are the k-means of what they have to code"""
    batch_size: Positive = 128
    lr: Rate = 0.003
    """of AdamW, falling to zero along half a cosine"""
    revive: Annotated[float, Field(ge=0, le=1)] = 0.1
    """a code used less than this share of equal use in an epoch is replaced by another vector's residual"""


class Layer(NamedTuple):
    """A linear layer."""

    weight: np.ndarray
    """float32 [out, in]"""
    bias: np.ndarray
    """float32 [out]"""


class RQVAE(Method):
    """Layers of encoder and decoder, and codebooks between them."""

    Params = RQVAEParams

    def __init__(
        self, encoder: list[Layer], quantiser: ResidualKMeans, decoder: list[Layer], history: list[dict[str, Any]]
    ) -> None:
        self.encoder, self.quantiser, self.decoder, self.history = encoder, quantiser, decoder, history

    @classmethod
    def fit(cls, vectors: Vectors, shape: Shape, params: Section, seed: int, progress: Progress = silent) -> Self:
        assert isinstance(params, RQVAEParams)
        enough(vectors, shape)
        with one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(vectors.sample.shape[1], shape, params).to(pick(mps=False))
            history = _train(network, vectors.sample, params, seed, progress)
        parts = {name: x.detach().cpu().numpy() for name, x in network.state_dict().items()}
        return cls(_layers(parts, "encoder"), ResidualKMeans(parts["codebooks"]), _layers(parts, "decoder"), history)

    @classmethod
    def from_tensors(cls, tensors: Tensors, shape: Shape) -> Self:
        codebooks = tensor(tensors, "codebooks", shape.levels, shape.codes, None)
        encoder, decoder = _layers(tensors, "encoder"), _layers(tensors, "decoder")
        widths = (encoder[-1].weight.shape[0], codebooks.shape[2], decoder[0].weight.shape[1])
        if len(set(widths)) > 1:
            raise UserError(f"encoder, codebooks and decoder meet at widths {widths}, expected one")
        if encoder[0].weight.shape[1] != decoder[-1].weight.shape[0]:
            raise UserError("encoder and decoder are for vectors of different widths")
        return cls(encoder, ResidualKMeans(codebooks), decoder, [])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return `encoder.<i>.weight`, `encoder.<i>.bias`, the decoder's likewise, and codebooks, float32 [L, K, D]."""
        named = {"codebooks": self.quantiser.centroids}
        for name, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for number, layer in enumerate(layers):
                named |= {f"{name}.{number}.weight": layer.weight, f"{name}.{number}.bias": layer.bias}
        return named

    def encode(self, x: np.ndarray) -> np.ndarray:
        same_width(x, self.encoder[0].weight.shape[1])
        return self.quantiser.encode(_forward(self.encoder, x))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return _forward(self.decoder, self.quantiser.decode(codes))

    def last(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return self.quantiser.last(_forward(self.encoder, x), codes)


class Network(nn.Module):
    """Encoder, codebooks [L, K, D] and decoder; ReLU between linear layers."""

    def __init__(self, width: int, shape: Shape, params: RQVAEParams) -> None:
        super().__init__()
        widths = [width, *params.hidden, params.width]
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[::-1]))
        self.codebooks = nn.Parameter(torch.zeros(shape.levels, shape.codes, params.width))

    def forward(self, x: Tensor, coded: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms of the loss of x, float32 [b, F], means over vectors, and the codes, int64 [b, L].

        reconstruction |x - decoder|^2, codebook |sg(rest) - code|^2, commitment |rest - sg(code)|^2, the last two
        summed over levels. Unless `coded`, the decoder reads the encoder's output, and there are no codes.
        """
        z = _through(self.encoder, x)  # [b, D]
        if not coded:
            return {"reconstruction": _square(x - _through(self.decoder, z))}, z.new_empty(0, 0, dtype=torch.long)
        rest, total, codes = z, torch.zeros_like(z), []
        codebook = commitment = z.new_zeros(())
        for centroids in self.codebooks:  # [K, D]
            codes.append(closest(rest.detach(), centroids.detach()))
            chosen = F.embedding(codes[-1], centroids)  # [b, D]
            codebook = codebook + _square(rest.detach() - chosen)
            commitment = commitment + _square(rest - chosen.detach())
            total, rest = total + chosen, rest - chosen.detach()
        passed = z + (total - z).detach()  # straight through: the decoder's gradient reaches the encoder as it is
        terms = {"reconstruction": _square(x - _through(self.decoder, passed))}
        return terms | {"codebook": codebook, "commitment": commitment}, torch.stack(codes, dim=1)


def closest(x: Tensor, centroids: Tensor) -> Tensor:
    """Return the nearest of centroids [K, D] to each row of x [b, D], int64 [b]."""
    return (centroids.square().sum(1) - 2 * x @ centroids.T).argmin(1)


def _train(
    network: Network, sample: np.ndarray, params: RQVAEParams, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=params.lr)
    steps = -(-len(sample) // params.batch_size) * params.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    weights = {"reconstruction": 1.0, "codebook": 1.0, "commitment": params.commitment}
    first, history = int(params.warm_up * params.epochs), []
    rng = np.random.default_rng(seed)
    with progress(total=params.epochs, unit="epoch", what="rqvae") as bar:
        for epoch in range(params.epochs):
            if epoch == first:
                _begin_codes(network, sample, seed)
            sums: Counter[str] = Counter()
            counts = torch.zeros_like(network.codebooks[:, :, 0], dtype=torch.long)  # [L, K]
            for x in _batches(sample, params.batch_size, rng):
                x = sent(x, counts.device)
                terms, codes = network(x, epoch >= first)
                terms["loss"] = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
                optimiser.zero_grad()
                terms["loss"].backward()
                optimiser.step()
                schedule.step()
                sums.update({name: float(term.detach()) * len(x) / len(sample) for name, term in terms.items()})
                for level, column in enumerate(codes.T):
                    counts[level] += torch.bincount(column, minlength=counts.shape[1])
            if not np.isfinite(sums["loss"]):
                raise UserError(f"the loss is not finite in epoch {epoch}; lower 'semantic_ids.settings.rqvae.lr'")
            history.append({"epoch": epoch, **sums, "used": (counts > 0).sum(1).tolist()})
            bar.set_postfix(loss=f"{sums['loss']:.4f}", used=history[-1]["used"])
            bar.update()
            if first <= epoch < params.epochs - 1:
                revive_codes(network, optimiser, counts, x, params.revive)
    return history


def _batches(sample: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    order = rng.permutation(len(sample))
    for at in range(0, len(order), size):
        yield torch.from_numpy(sample[order[at : at + size]])


@torch.no_grad()
def _begin_codes(network: Network, sample: np.ndarray, seed: int) -> None:
    levels, codes, _ = network.codebooks.shape
    some = sample[np.sort(np.random.default_rng(seed).permutation(len(sample))[: kmeans.POINTS * codes])]
    z = _through(network.encoder, sent(torch.from_numpy(some), network.codebooks.device)).cpu().numpy()
    found = ResidualKMeans.fit(Vectors(lambda: [z], len(z), z), Shape(levels, codes), ResidualKMeansParams(), seed)
    network.codebooks.copy_(torch.from_numpy(found.centroids))


@torch.no_grad()
def revive_codes(network: Network, optimiser: torch.optim.Optimizer, counts: Tensor, x: Tensor, share: float) -> None:
    rest = _through(network.encoder, sent(x, counts.device))
    for level, centroids in enumerate(network.codebooks):
        dead = torch.nonzero(counts[level] <= share * counts[level].float().mean())[:, 0]
        source = torch.randperm(len(rest))[: len(dead)].to(rest.device)
        dead = dead[: len(source)]
        centroids[dead] = rest[source]
        for moment in optimiser.state[network.codebooks].values():
            if moment.shape == network.codebooks.shape:  # of Adam; the other value counts steps
                moment[level, dead] = 0
        rest = rest - centroids[closest(rest, centroids)]


def _through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for number, layer in enumerate(layers):
        x = layer(x if number == 0 else x.relu())
    return x


def _square(x: Tensor) -> Tensor:
    return x.square().sum(1).mean()


def _forward(layers: list[Layer], x: np.ndarray) -> np.ndarray:
    with limited(1, user_api="blas"):
        for number, layer in enumerate(layers):
            x = (x if number == 0 else np.maximum(x, 0)) @ layer.weight.T + layer.bias
    return x


def _layers(tensors: Tensors, name: str) -> list[Layer]:
    """Return the layers of encoder or decoder; UserError if one does not fit the one before."""
    layers: list[Layer] = []
    while f"{name}.{len(layers)}.weight" in tensors or not layers:
        number = len(layers)
        if number == MOST_LAYERS:
            raise UserError(f"more than {MOST_LAYERS} layers '{name}'")
        weight = tensor(tensors, f"{name}.{number}.weight", None, layers[-1].weight.shape[0] if layers else None)
        layers.append(Layer(weight, tensor(tensors, f"{name}.{number}.bias", len(weight))))
    return layers
