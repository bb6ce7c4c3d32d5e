"""Fast inference of BEiT3's item feature, equal to `BEiT3.cls` up to rounding.

All vision rows of a batch form one matrix and all text rows another, without padding; weights are cast and packed once;
the last layer is computed for CLS only. The residual stream stays in float32, whatever the precision of products.

Letters: B items, v vision rows per item (1 + P, or only CLS), W text rows of all items, D width, H heads, d = D / H.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3, BEiT3Layer, Streams
from alignrec.pipeline.linalg.device import by_onednn

CPU_RUN = 2  # items whose attention a CPU computes at once: their scores stay in its cache

RowMap = Callable[[Tensor], Tensor]  # [n, in] -> [n, out]


class RowCounts(NamedTuple):
    """Number of rows of each item in the two matrices."""

    vision: int  # vision rows of each item, v
    lengths: Sequence[int]  # text rows of each of B items

    def item_views(self, x: Streams, start: int, stop: int) -> list[Tensor]:
        """Return views of the rows of items `start` to `stop` - 1: vision [n, v, D], text [n, T, D]."""
        n, length, before = stop - start, self.lengths[start], sum(self.lengths[:start])
        views = []
        if x.vision is not None:
            views.append(
                x.vision[start * self.vision : stop * self.vision].unflatten(0, (n, self.vision))
            )
        if x.text is not None and length:
            views.append(x.text[before : before + n * length].unflatten(0, (n, length)))
        return views


class Inference:
    """A BEiT3 that computes only CLS, from a copy of the weights in `precision`, float32 or bfloat16."""

    def __init__(self, network: BEiT3, precision: str) -> None:
        self.config: BEiT3Config = network.config
        body = network.beit3  # not kept, so that its layers' weights can be freed
        self._vision, self._text, self._positions = (
            body.vision_embed,
            body.text_embed,
            body.encoder.embed_positions,
        )
        self._norm = body.encoder.layer_norm.A
        with torch.no_grad():
            self._layers = [
                InferenceLayer(cast(BEiT3Layer, layer), precision) for layer in body.encoder.layers
            ]

    @torch.inference_mode()
    def cls(self, image: Tensor | None, tokens: Tensor | None, lengths: Sequence[int]) -> Tensor:
        """Return CLS, float32 [B, D], of images, float32 [B, 3, S, S] in [-1, 1], and concatenated texts, int64 [W]."""
        vision = self._vision(image, None, len(lengths))  # [B, v, D]
        rows = RowCounts(vision.shape[1], lengths)
        places = torch.arange(rows.vision, device=vision.device) + FIRST_POSITION  # [v]
        x = Streams((vision + self._positions.A(places)).flatten(0, 1), None)  # [B v, D]
        if tokens is not None:
            places = (
                torch.cat([torch.arange(n) for n in lengths]).to(tokens.device) + FIRST_POSITION
            )  # [W]
            x = Streams(x.vision, self._text(tokens) + self._positions.B(places))  # [W, D]
        for layer in self._layers[:-1]:
            x = layer(x, rows)
        return self._norm(self._layers[-1](x, rows, first_only=True).joined())  # [B, D]


def count_flops(c: BEiT3Config, image: bool, tokens: int) -> float:
    n = 1 + c.patches * image + tokens
    pair, one = (
        2 * c.width * c.width,
        2 * c.width * c.ffn,
    )  # FLOPs per position of a D x D and of a D x FFN product
    whole = n * (4 * pair + 2 * one) + 4 * n * n * c.width
    last = n * 2 * pair + 2 * pair + 2 * one + 4 * n * c.width
    return (c.layers - 1) * whole + last + image * c.patches * 2 * 3 * c.patch**2 * c.width


class InferenceLayer:
    def __init__(self, layer: BEiT3Layer, precision: str) -> None:
        attention = layer.self_attn
        dtype = getattr(torch, precision)  # precision of matrix products
        linear = partial(_make_linear, dtype=dtype)
        self._heads = attention.heads
        self._before_attention, self._before_ffn = [], []
        self._query, self._key_value, self._out, self._ffn = [], [], [], []
        for expert in "AB":  # vision, text
            q, k, v = (
                getattr(m, expert) for m in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            out, inner = (
                getattr(attention.out_proj, expert),
                getattr(attention.inner_attn_ln, expert),
            )
            first, second = (
                getattr(layer.self_attn_layer_norm, expert),
                getattr(layer.final_layer_norm, expert),
            )
            ffn = getattr(layer.ffn, expert)
            self._before_attention.append(_make_norm(first, torch.float32, dtype))
            self._query.append(linear(q))
            self._key_value.append(linear(k, v))
            self._out.append(_chain_maps(_make_norm(inner, dtype, dtype), linear(out)))
            self._before_ffn.append(_make_norm(second, torch.float32, dtype))
            self._ffn.append(
                _chain_maps(
                    linear(ffn.fc1),
                    F.gelu,
                    _make_norm(ffn.ffn_layernorm, dtype, dtype),
                    linear(ffn.fc2),
                )
            )

    def __call__(self, x: Streams, rows: RowCounts, first_only: bool = False) -> Streams:
        """Map vision [B v, D] and text [W, D] to the same shapes, or to CLS only, [B, D]."""
        y = x.map(*self._before_attention)
        query_rows, queries = rows, y
        if first_only:
            query_rows = RowCounts(1, [0] * len(rows.lengths))
            x, queries = (
                Streams(s.vision[:: rows.vision], None) for s in (x, y) if s.vision is not None
            )
        attended = self._attend_runs(
            queries.map(*self._query), query_rows, y.map(*self._key_value), rows
        )
        x = x.plus(attended.map(*self._out))  # float32 plus dtype is float32
        return x.plus(x.map(*self._before_ffn).map(*self._ffn))

    def _attend_runs(
        self, queries: Streams, query_rows: RowCounts, x: Streams, rows: RowCounts
    ) -> Streams:
        """Attend to keys and values [.., 2D], one run of items of equal length at a time, without padding."""
        out = queries.map(torch.empty_like, torch.empty_like)
        on_gpu = queries.vision is not None and queries.vision.is_cuda
        most, runs = len(rows.lengths) if on_gpu else CPU_RUN, list[tuple[int, int]]()
        for _, same in groupby(range(len(rows.lengths)), key=rows.lengths.__getitem__):
            items = list(same)
            runs += [(start, min(start + most, items[-1] + 1)) for start in items[::most]]
        for start, stop in runs:
            (q,) = self._by_head(query_rows.item_views(queries, start, stop), 1)
            k, v = self._by_head(rows.item_views(x, start, stop), 2)
            if (
                q.device.type == "cpu" and q.dtype == torch.bfloat16
            ):  # PyTorch's fused kernel takes 1.5 times as long
                attended = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v
            else:
                attended = F.scaled_dot_product_attention(q, k, v)  # [n, H, Q, d]
            places = query_rows.item_views(out, start, stop)
            split = attended.transpose(1, 2).split(
                [p.shape[1] for p in places], 1
            )  # [n, .., H, d] each
            for place, part in zip(places, split, strict=True):
                place.unflatten(2, (self._heads, -1)).copy_(part)
        return out

    def _by_head(self, views: Sequence[Tensor], parts: int) -> Tensor:
        """Return [parts, n, H, v + T, d], contiguous for bmm, from views [n, v, parts D] and [n, T, parts D]."""
        lengths = [view.shape[1] for view in views]
        out = views[0].new_empty(
            parts,
            len(views[0]),
            self._heads,
            sum(lengths),
            views[0].shape[2] // parts // self._heads,
        )
        for place, view in zip(out.split(lengths, 3), views, strict=True):
            place.copy_(view.unflatten(2, (parts, self._heads, -1)).permute(2, 0, 3, 1, 4))
        return out


def _chain_maps(*maps: RowMap) -> RowMap:
    def apply(x: Tensor) -> Tensor:
        for m in maps:
            x = m(x)
        return x

    return apply


def _make_norm(norm: nn.LayerNorm, dtype: torch.dtype, out: torch.dtype) -> RowMap:
    """Return a LayerNorm computed in `dtype` whose output is cast to `out`."""
    shape, weight, bias = norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype)
    return lambda x: F.layer_norm(x, shape, weight, bias, norm.eps).to(out)


def _make_linear(*layers: nn.Linear, dtype: torch.dtype) -> RowMap:
    weight = torch.cat([layer.weight for layer in layers]).to(dtype)
    bias = torch.cat([layer.bias for layer in layers]).to(dtype)
    if not by_onednn(weight.device, dtype):
        return lambda x: F.linear(x, weight, bias)
    # weights packed for oneDNN: on an AMD EPYC (Zen 4) a tenth faster than F.linear in bfloat16, a third in float32
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
