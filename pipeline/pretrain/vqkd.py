"""VQ-KD trained here: a tokenizer whose codes are enough to rebuild a teacher's features of every patch.

Source: "BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers" (arXiv 2208.06366), section 2.2. The
codebook is a moving average of the vectors that fall to each code, as in "Neural Discrete Representation Learning"
(arXiv 1711.00937), appendix A.1; codes that nothing falls to are revived, as in Jukebox (arXiv 2005.00341).

Letters: n images, B batch, S image side, P patches, D width, C codes, E code width, W the teacher's width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.beit3.vqkd import EPSILON, HEAD_WIDTH, VQKD, Block, Config
from pipeline.errors import UserError
from pipeline.images.pixels import normalised
from pipeline.ops.checkpoint import Checkpoint, adam_state, named, part_of, restore_adam
from pipeline.pretrain.optim import learning_rate
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.teacher import FeatureMaps
from pipeline.seeds import seed_for

BATCH = 64
BETAS, WEIGHT_DECAY = (0.9, 0.99), 1e-4  # BEiT v2's
DECAY = 0.99
"""of the moving averages of the codebook (BEiT v2)"""
DEAD = 0.1
"""a code is revived where it gets less than this of an even share of the patches"""
FRESH = 2 * DEAD
"""of an even share, which a new code is taken to get: it has 69 steps to find vectors"""
CODE_WIDTH = 32  # E (BEiT v2)
DECODER_LAYERS = 1
"""blocks that rebuild the features; a shallow decoder leaves more for the codes to say"""


class Decoder(nn.Module):
    """Codes of an image -> the teacher's features of its patches."""

    def __init__(self, c: Config, teacher_width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(c.code_width, c.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, c.patches, c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(DECODER_LAYERS))
        self.norm = nn.LayerNorm(c.width, eps=EPSILON)
        self.task_layer = nn.Sequential(nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, teacher_width))

    def forward(self, codes: Tensor) -> Tensor:
        """[B, P, E] -> [B, P, W]."""
        x = self.embed(codes) + self.pos_embed  # [B, P, D]
        for block in self.blocks:
            x = block(x)
        return self.task_layer(self.norm(x))


class Codebook:
    """The codes of a tokenizer, of length 1, which follow the vectors that fall to them."""

    def __init__(self, embedding: nn.Embedding, share: float) -> None:
        """Take over a tokenizer's codes, float32 [C, E]; `share` is the number of patches of a batch over C."""
        self.codes = embedding.weight.requires_grad_(False)
        self.use = torch.full((len(self.codes),), FRESH * share, device=self.codes.device)
        """moving average of the patches of a batch that fall to each code, float32 [C]"""
        self.share = share

    @torch.no_grad()
    def follow(self, vectors: Tensor, tokens: Tensor, seed: int) -> int:
        """Move each code towards the mean of its vectors, then revive dead codes; return how many were.

        Args:
            vectors: of the batch, length 1, float32 [N, E].
            tokens: the code that each falls to, int64 [N].
            seed: of the draw of the vectors that dead codes become.
        """
        one_hot = F.one_hot(tokens, len(self.codes)).to(vectors.dtype)  # [N, C]; a product adds up in one order
        counts = one_hot.sum(0)  # [C]
        means = F.normalize(one_hot.T @ vectors, dim=1)  # [C, E]
        moved = F.normalize(self.codes.lerp(means, 1 - DECAY), dim=1)
        self.codes.copy_(torch.where(counts[:, None] > 0, moved, self.codes))
        self.use.lerp_(counts, 1 - DECAY)
        dead = (self.use < DEAD * self.share).nonzero().squeeze(1)
        drawn = np.random.default_rng(seed).permutation(len(vectors))[: len(dead)]
        dead = dead[: len(drawn)]
        self.codes[dead] = vectors[torch.from_numpy(drawn).to(dead.device)]
        self.use[dead] = FRESH * self.share
        return len(dead)


class Training:
    """A tokenizer, its decoder and the state of their training."""

    def __init__(self, c: Config, teacher_width: int, params: Pretrain, share: float, device: torch.device) -> None:
        self.tokenizer = VQKD(c).to(device)
        self.decoder = Decoder(c, teacher_width).to(device)
        self.codebook = Codebook(self.tokenizer.quantize.embedding, share)
        self.modules = nn.ModuleList([self.tokenizer, self.decoder])
        _initialise(self.modules)
        trained = [p for p in self.modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, params.vqkd_lr, BETAS, weight_decay=WEIGHT_DECAY, fused=True)

    def step(self, image: Tensor, target: Tensor, rate: float, seed: int) -> tuple[float, int]:
        """Take one step; return the mean cosine to the teacher's features, and how many codes were revived.

        The loss is `1 - cosine + mean((z - sg(c))^2)`; the gradient passes from the code c straight to its vector z.

        Args:
            image: float32 [B, 3, S, S].
            target: the teacher's, length 1, float32 [B, P, W].
            rate: of the optimiser.
            seed: of the revivals.

        Raises:
            UserError: the loss is not finite.
        """
        z = F.normalize(self.tokenizer(image), dim=-1)  # [B, P, E]
        tokens = self.tokenizer.quantize.nearest(z.detach())  # [B, P]
        code = self.codebook.codes[tokens]  # [B, P, E], a copy: the codes move below
        rebuilt = self.decoder(z + (code - z).detach())  # [B, P, W]
        cosine = F.cosine_similarity(rebuilt, target, dim=-1).mean()
        loss = 1 - cosine + F.mse_loss(z, code)
        if not math.isfinite(value := float(loss.detach())):
            raise UserError(f"visual tokens: the loss is {value}; lower pretrain.vqkd_lr")
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return float(cosine.detach()), self.codebook.follow(z.detach().flatten(0, 1), tokens.flatten(), seed)

    def state(self) -> dict[str, Tensor]:
        """Return all that `restore` needs."""
        tensors = named("weights", self.modules.state_dict()) | named("adam", adam_state(self.optimizer))
        return tensors | {"use": self.codebook.use}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.modules.load_state_dict(part_of(tensors, "weights"))
        restore_adam(self.optimizer, part_of(tensors, "adam"))
        self.codebook.use.copy_(tensors["use"])


def train(
    pixels: np.ndarray,
    maps: FeatureMaps,
    patch: int,
    params: Pretrain,
    checkpoint: Checkpoint,
    seed: int,
    device: torch.device,
    done: Callable[[int], object],
) -> tuple[VQKD, dict[str, float]]:
    """Train a tokenizer, from the checkpoint if there is one.

    Args:
        pixels: uint8 [n, S, S, 3].
        maps: the teacher's features of the same images.
        patch: side of a patch, pixels.
        params: of pre-training.
        checkpoint: written every few steps; the caller deletes it when the tokenizer is safe.
        seed: of all draws.
        device: to train on.
        done: called after each step with the number of images.

    Returns:
        the tokenizer, and what was measured: `cosine` to the teacher's features, mean over the last epoch; `revived`,
        how many times a code was.
    """
    n, patches, width = maps.shape
    shape = _shape(pixels.shape[1] // patch, patch, n * patches, params)
    torch.manual_seed(seed_for(seed, "network"))
    training = Training(shape, width, params, min(n, BATCH) * patches / shape.codes, device)
    per_epoch = math.ceil(n / BATCH)
    steps, begin, cosine, revived = params.vqkd_epochs * per_epoch, 0, 0.0, 0
    rates = params.model_copy(update={"lr": params.vqkd_lr})
    if (saved := checkpoint.load()) is not None:
        training.restore(saved[0])
        begin, cosine, revived = saved[1]
        done(begin // per_epoch * n + begin % per_epoch * BATCH)
    else:
        _start(training, pixels, seed)
    for step in range(begin, steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng(seed_for(seed, "order", epoch)).permutation(n)
        images = np.sort(order[place * BATCH : (place + 1) * BATCH])
        target = torch.from_numpy(maps.rows(images)).to(device)
        rate = learning_rate(step, steps, rates)
        outcome = training.step(_image(pixels, images, shape, device), target, rate, seed_for(seed, "revive", step))
        cosine = (cosine if place else 0.0) + outcome[0] * len(images) / n
        revived += outcome[1]
        done(len(images))
        if (step + 1) % checkpoint.every == 0 and step + 1 < steps:
            checkpoint.save(training.state(), [step + 1, cosine, revived])
    return training.tokenizer.eval().requires_grad_(False), {"cosine": round(cosine, 4), "revived": revived}


@torch.no_grad()
def tokens(tokenizer: VQKD, pixels: np.ndarray) -> np.ndarray:
    """Return the visual tokens of images: uint8 [n, S, S, 3] -> int32 [n, P]."""
    shape, device = tokenizer.config, tokenizer.encoder.pos_embed.device
    out = np.empty((len(pixels), shape.patches), np.int32)
    for first in range(0, len(pixels), BATCH):
        images = np.arange(first, min(first + BATCH, len(pixels)))
        out[images] = tokenizer.tokens(_image(pixels, images, shape, device)).cpu().numpy()
    return out


def _shape(grid: int, patch: int, vectors: int, params: Pretrain) -> Config:
    """Return the tokenizer's shape; it has no more codes than the images have patches."""
    width = params.vqkd_width
    codes = min(params.codes, vectors)
    return Config(grid * patch, patch, width, params.vqkd_layers, width // HEAD_WIDTH, codes, CODE_WIDTH)


def _image(pixels: np.ndarray, images: np.ndarray, shape: Config, device: torch.device) -> Tensor:
    """Return images as the tokenizer reads them, float32 [B, 3, S, S]; what is beyond the last whole patch is cut."""
    return normalised(np.array(pixels[images][:, : shape.image, : shape.image])).to(device)


def _initialise(modules: nn.Module) -> None:
    """Draw weights and positions from a normal distribution of sd 0.02, as BEiT's are; biases are zero."""
    for module in modules.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in modules.named_parameters():
        if name.endswith(("pos_embed", "cls_token")):
            nn.init.trunc_normal_(parameter, std=0.02)


@torch.no_grad()
def _start(training: Training, pixels: np.ndarray, seed: int) -> None:
    """Make the codes vectors of patches, as the untrained encoder gives them; drawn without repetition."""
    shape, codes = training.tokenizer.config, training.codebook.codes
    rng = np.random.default_rng(seed_for(seed, "codes"))
    images = np.sort(rng.permutation(len(pixels))[: math.ceil(len(codes) / shape.patches) + BATCH])
    parts = [
        training.tokenizer(_image(pixels, images[first : first + BATCH], shape, codes.device)).flatten(0, 1)
        for first in range(0, len(images), BATCH)
    ]
    vectors = F.normalize(torch.cat(parts), dim=1)  # [N, E], N >= C
    codes.copy_(vectors[torch.from_numpy(rng.permutation(len(vectors))[: len(codes)]).to(codes.device)])
