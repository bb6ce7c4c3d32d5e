"""The frozen encoders that teach pre-training, and the inputs of a pre-training that resumes.

Their joint vector is that of feature set `linear`, so CLS learns one vector whatever the encoders, in which directions
and modalities are already weighted.

Letters: I items, F width of an encoder's vectors, W of the target.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

import schemas
from pipeline import io
from pipeline.encode.batching import read_images
from pipeline.encode.mini import hash_images
from pipeline.encode.origin import plainly
from pipeline.encode.params import Encode
from pipeline.features import linear, quality, registry
from pipeline.features.encoded import with_progress
from pipeline.features.node import Items, Node
from pipeline.features.sets import FeatureSets
from pipeline.http.fetch import local
from pipeline.items.texts import Texts
from pipeline.layout import Layout
from pipeline.ops import joining
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Block
from pipeline.ops.linalg import unit_rows
from pipeline.pretrain import mini
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run

BLOCK = 4096  # items in memory at a time
Rows = Callable[[int, int], pa.Table]  # first item, last + 1 -> their rows, schema features(F)


def teach(run: Run, texts: Texts) -> np.ndarray | None:
    """Return the joint vector of the teachers, float32 [I, W], from disk if it is there; None without teachers.

    By default teachers are skipped that read no modality of the dataset.
    """
    layout, own = run.layout, run.params[Pretrain]
    params = run.params[Encode].model_copy(update={"encoders": []})  # parts of a concat are encoded here: no set is yet
    ids = run.read(layout.item_ids, schemas.ITEM_IDS)
    sets = FeatureSets(layout, params, run.params.encoders)
    given, there = "distill_from" in own.model_fields_set, _modalities(layout, texts)
    nodes = [sets[name] for name in own.distill_from if given or there & {*sets[name].reads}]
    if not nodes:
        return None
    features = _vectors(run, texts, ids, nodes, "pretrain.distill_from")
    items = Items(ids, texts)
    distinct = [quality.differ(vectors) for vectors in features]
    blocks = [block for block in linear.blocks(nodes, items, IMAGE) if distinct[block.part]]
    if not blocks:
        run.warn("pretrain.distill_from: no teacher distinguishes items, so nothing is distilled")
        return None
    return target(features, blocks, layout.teacher_target)


def images(run: Run, texts: Texts) -> mini.Images:
    """Return the vectors of all images, the encoders' side by side."""
    ids, own, n = run.read(run.layout.item_ids, schemas.ITEM_IDS), run.layout.encoder, len(texts)
    params = run.params[Encode].model_copy(update={"encoders": []})
    sets = FeatureSets(run.layout, params, run.params.encoders)
    parts = _vectors(run, texts, ids, [sets[name] for name in mini.TOKENS], "pretrain.size")
    blocks = [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]
    vectors = _kept(own.images, n, (np.hstack([x[block] for x in parts]) for block in blocks))
    if not own.image_hashes.is_file():
        shards = io.shards(run.layout.images, "images")
        hashes = [hash_images(read_images(shards, at, min(at + io.PART, n))) for at in range(0, n, io.PART)]
        io.write_npy(own.image_hashes, np.concatenate(hashes))
    has = np.concatenate([vectors[block].any(axis=1) for block in blocks])
    widths = tuple(x.shape[1] for x in parts) if has.any() else ()
    return mini.Images(vectors, np.where(has, np.arange(n), -1), widths)


def _vectors(run: Run, texts: Texts, ids: pa.Table, nodes: Sequence[Node], key: str) -> list[np.ndarray]:
    layout = run.layout
    for node in nodes:
        own = registry.ingredients(run.params.encoders, registry.whole(run.params.encoders, [node.name]))
        files = [layout.items, *(io.shards(layout.images, "images") if "image" in node.reads else []), *own.files]
        folder = layout.teacher_features(node.name).parent
        run.resume(folder, files, run.params[Encode].batch_size, *own.facts, modules=own.modules)
    with run.progress(total=len(texts) * len(nodes), unit="item", what="frozen encoders") as bar, plainly(key):
        items = Items(ids, texts, bar.update)
        return [encoded(with_progress(node, items), len(ids), layout.teacher_features(node.name)) for node in nodes]


def _modalities(layout: Layout, texts: Texts) -> set[str]:
    statuses = (
        io.read_table(path, schemas.IMAGES, ["status"])["status"] for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard.unique().to_pylist() for shard in statuses)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}


def is_read(run: Run) -> bool:
    """Return whether a feature set reads what is trained: here, as the registry shapes no training."""
    return registry.reads_pretrained(run.params.encoders, run.params[Encode].encoders)


def resume(run: Run) -> None:
    own, encoders, layout = run.params[Pretrain], run.params.encoders, run.layout
    names = registry.whole(encoders, own.distill_from if own.distill else ())
    named = [local(address) for address in (own.init, own.tokenizer, own.vqkd) if address]
    published = [path for path in named if path is not None and path.is_file()]
    teachers, facts = registry.ingredients(encoders, names), [own.facts()]
    if own.size != "mini" and not own.init:
        facts.append({"words": registry.libraries(encoders, ["minilm"])})
    if own.size == "mini":
        facts.append({"start": registry.libraries(encoders, ["minilm", *mini.TOKENS])})
    if names:
        facts += [{"batch_size": run.params[Encode].batch_size}, *teachers.facts]
    files = [layout.items, *io.shards(layout.images, "images"), *published, *teachers.files]
    run.resume(run.folder, files, facts, modules=["pipeline.pretrain.train", *teachers.modules])


def encoded(rows: Rows, n_items: int, path: Path) -> np.ndarray:
    """Return an encoder's vectors of all items, a memory map of float32 [I, F], from its file if that exists."""
    starts = range(0, n_items, BLOCK)
    return _kept(path, n_items, (io.matrix(rows(at, min(at + BLOCK, n_items))["vector"]) for at in starts))


def target(features: Sequence[np.ndarray], blocks: Sequence[Block], path: Path) -> np.ndarray:
    """Return the target of all items, a memory map of float32 [I, W], from its file if that exists.

    Rows have length 1, or are zero for items without content.
    """
    n_items = len(features[0])

    def parts() -> Iterator[list[np.ndarray]]:
        return ([x[start : start + BLOCK] for x in features] for start in range(0, n_items, BLOCK))

    def joined() -> Iterator[np.ndarray]:
        fit = joining.fit(parts, blocks, WIDTH, POWER)
        yield from (unit_rows(fit(some))[0] for some in parts())

    return _kept(path, n_items, joined())


def _kept(path: Path, rows: int, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Return a memory map of float32 rows from their file, which is written from blocks of them if it is absent."""
    if not path.is_file():
        with io.atomic(path) as temporary:
            out, start = None, 0
            for block in blocks:
                if out is None:
                    out = open_memmap(temporary, "w+", np.float32, (rows, block.shape[1]))
                out[start : start + len(block)] = block
                start += len(block)
            assert out is not None
            out.flush()
    vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors
