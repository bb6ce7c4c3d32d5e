"""Fast inference of BEiT3's item feature, equal to `BEiT3.summary` up to rounding.

All vision rows of a batch form one matrix and all text rows another, without padding; weights are
cast and packed once; the last layer is computed for CLS only. The residual stream stays in float32,
whatever the precision of products.

Letters: B items, v vision rows per item (1 + P, or only CLS), W text rows of all items, D width, H
heads, d = D / H.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3, BEiT3Layer, Streams
from alignrec.pipeline.linalg.device import by_onednn

ITEMS_PER_CPU_ATTENTION = 2  # whose scores stay in the cache of a CPU

RowMap = Callable[[Tensor], Tensor]  # [n, in] -> [n, out]


class RowCounts(NamedTuple):
    """Number of rows of each item in the two matrices."""

    vision: int  # vision rows of each item, v
    lengths: Sequence[int]  # text rows of each of B items

    def item_views(self, x: Streams, start: int, stop: int) -> list[Tensor]:
        """Return views of the rows of items `start` to `stop` - 1, of equally long texts.

        They are vision [n, v, D], text [n, T, D].
        """
        n = stop - start
        views = []
        if x.vision is not None:
            rows = x.vision[start * self.vision : stop * self.vision]
            views.append(rows.unflatten(0, (n, self.vision)))
        length = self.lengths[start]
        if x.text is not None and length:
            before = sum(self.lengths[:start])
            rows = x.text[before : before + n * length]
            views.append(rows.unflatten(0, (n, length)))
        return views

    def equal_runs(self, max_items: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of at most `max_items` neighbours whose texts are equally long."""
        start = 0
        for _, equal in groupby(self.lengths):
            stop = start + len(list(equal))
            for first in range(start, stop, max_items):
                yield first, min(first + max_items, stop)
            start = stop


class Inference:
    """A BEiT3 that computes only CLS, from a copy of the weights in float32 or bfloat16."""

    def __init__(self, network: BEiT3, precision: str) -> None:
        self.config: BEiT3Config = network.config
        # the network is not kept, so that its layers' weights can be freed
        self._vision = network.beit3.vision_embed
        self._text = network.beit3.text_embed
        encoder = network.beit3.encoder
        self._positions = encoder.embed_positions
        self._norm = encoder.layer_norm.A
        self._layers = []
        with torch.no_grad():
            for layer in encoder.layers:
                self._layers.append(InferenceLayer(cast(BEiT3Layer, layer), precision))

    @torch.inference_mode()
    def cls(self, image: Tensor | None, tokens: Tensor | None, lengths: Sequence[int]) -> Tensor:
        """Return CLS, float32 [B, D].

        Args:
            image: float32 [B, 3, S, S] in [-1, 1].
            tokens: int64 [W], the ids of all texts, concatenated.
            lengths: number of ids of each of B texts.
        """
        vision = self._vision(image, None, len(lengths))  # [B, v, D]
        rows = RowCounts(vision.shape[1], lengths)
        places = torch.arange(rows.vision, device=vision.device) + FIRST_POSITION  # [v]
        vision = (vision + self._positions.A(places)).flatten(0, 1)  # [B v, D]

        text = None
        if tokens is not None:
            places_of_texts = torch.cat([torch.arange(n) for n in lengths])  # [W]
            places = places_of_texts.to(tokens.device) + FIRST_POSITION
            text = self._text(tokens) + self._positions.B(places)  # [W, D]

        x = Streams(vision, text)
        for layer in self._layers[:-1]:
            x = layer(x, rows)
        cls = self._layers[-1](x, rows, first_only=True)
        return self._norm(cls.joined())  # [B, D]


def count_flops(c: BEiT3Config, image: bool, tokens: int) -> float:
    n = 1 + c.patches * image + tokens
    projection = 2 * c.width * c.width  # FLOPs per position of a D x D product
    expansion = 2 * c.width * c.ffn  # and of a D x FFN product

    layer = n * (4 * projection + 2 * expansion) + 4 * n * n * c.width
    last_layer = n * 2 * projection + 2 * projection + 2 * expansion + 4 * n * c.width
    patch_embedding = image * c.patches * 2 * 3 * c.patch**2 * c.width
    return (c.layers - 1) * layer + last_layer + patch_embedding


class Expert(NamedTuple):
    """Maps of the rows of one modality in a layer."""

    before_attention: RowMap
    query: RowMap
    key_value: RowMap  # [n, D] -> [n, 2 D]
    out: RowMap
    before_ffn: RowMap
    ffn: RowMap


class InferenceLayer:
    """A layer whose weights are cast and packed."""

    def __init__(self, layer: BEiT3Layer, precision: str) -> None:
        dtype = getattr(torch, precision)  # precision of matrix products
        self._heads = layer.self_attn.heads
        self._vision = _make_expert(layer, "A", dtype)
        self._text = _make_expert(layer, "B", dtype)

    def __call__(self, x: Streams, rows: RowCounts, first_only: bool = False) -> Streams:
        """Map vision [B v, D] and text [W, D] to the same shapes, or to CLS only, [B, D]."""
        vision, text = self._vision, self._text
        y = x.map(vision.before_attention, text.before_attention)
        key_values = y.map(vision.key_value, text.key_value)
        query_rows = rows
        if first_only:
            query_rows = RowCounts(1, [0] * len(rows.lengths))
            x = _first_rows(x, rows.vision)
            y = _first_rows(y, rows.vision)
        queries = y.map(vision.query, text.query)

        attended = self._attend_runs(queries, query_rows, key_values, rows)
        x = x.plus(attended.map(vision.out, text.out))  # float32 plus dtype is float32
        hidden = x.map(vision.before_ffn, text.before_ffn)
        return x.plus(hidden.map(vision.ffn, text.ffn))

    def _attend_runs(
        self, queries: Streams, query_rows: RowCounts, key_values: Streams, rows: RowCounts
    ) -> Streams:
        """Attend to keys and values [.., 2D] without padding, a run of equal items at a time."""
        out = queries.map(torch.empty_like, torch.empty_like)
        on_gpu = queries.vision is not None and queries.vision.is_cuda
        max_items = len(rows.lengths) if on_gpu else ITEMS_PER_CPU_ATTENTION

        for start, stop in rows.equal_runs(max_items):
            (q,) = self._by_head(query_rows.item_views(queries, start, stop), 1)
            k, v = self._by_head(rows.item_views(key_values, start, stop), 2)
            attended = _attend(q, k, v).transpose(1, 2)  # [n, Q, H, d]

            views = query_rows.item_views(out, start, stop)
            parts = attended.split([view.shape[1] for view in views], 1)  # [n, .., H, d] each
            for view, part in zip(views, parts, strict=True):
                view.unflatten(2, (self._heads, -1)).copy_(part)
        return out

    def _by_head(self, views: Sequence[Tensor], parts: int) -> Tensor:
        """Return [parts, n, H, v + T, d], contiguous for bmm, from [n, v and T, parts D] each."""
        lengths = [view.shape[1] for view in views]
        n, _, width = views[0].shape
        head_width = width // parts // self._heads
        out = views[0].new_empty(parts, n, self._heads, sum(lengths), head_width)
        for place, view in zip(out.split(lengths, 3), views, strict=True):
            place.copy_(view.unflatten(2, (parts, self._heads, -1)).permute(2, 0, 3, 1, 4))
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # PyTorch's fused kernel takes 1.5 times as long
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v
    return F.scaled_dot_product_attention(q, k, v)  # [n, H, Q, d]


def _first_rows(x: Streams, rows_per_item: int) -> Streams:
    assert x.vision is not None
    return Streams(x.vision[::rows_per_item], None)


def _make_expert(layer: BEiT3Layer, name: str, dtype: torch.dtype) -> Expert:
    """Return the maps of expert `name`, A for vision or B for text."""

    def expert(pair: nn.Module) -> Any:
        return getattr(pair, name)

    attention = layer.self_attn
    ffn = expert(layer.ffn)
    linear = partial(_make_linear, dtype=dtype)
    norm = partial(_make_norm, dtype=dtype, out=dtype)
    return Expert(
        before_attention=_make_norm(expert(layer.self_attn_layer_norm), torch.float32, dtype),
        query=linear(expert(attention.q_proj)),
        key_value=linear(expert(attention.k_proj), expert(attention.v_proj)),
        out=_chain_maps(norm(expert(attention.inner_attn_ln)), linear(expert(attention.out_proj))),
        before_ffn=_make_norm(expert(layer.final_layer_norm), torch.float32, dtype),
        ffn=_chain_maps(linear(ffn.fc1), F.gelu, norm(ffn.ffn_layernorm), linear(ffn.fc2)),
    )


def _chain_maps(*maps: RowMap) -> RowMap:
    def apply(x: Tensor) -> Tensor:
        for m in maps:
            x = m(x)
        return x

    return apply


def _make_norm(norm: nn.LayerNorm, dtype: torch.dtype, out: torch.dtype) -> RowMap:
    """Return a LayerNorm computed in `dtype` whose output is cast to `out`."""
    shape = norm.normalized_shape
    weight = norm.weight.to(dtype)
    bias = norm.bias.to(dtype)
    return lambda x: F.layer_norm(x, shape, weight, bias, norm.eps).to(out)


def _make_linear(*layers: nn.Linear, dtype: torch.dtype) -> RowMap:
    weight = torch.cat([layer.weight for layer in layers]).to(dtype)
    bias = torch.cat([layer.bias for layer in layers]).to(dtype)
    if not by_onednn(weight.device, dtype):
        return lambda x: F.linear(x, weight, bias)
    # weights packed for oneDNN: on an AMD EPYC (Zen 4) a tenth faster than F.linear in bfloat16, a
    # third in float32
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
