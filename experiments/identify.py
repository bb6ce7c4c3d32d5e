"""Which recipe of a network of transformers made a file of vectors (docs/compare.md).

Command: `python -m experiments.identify sample theirs.npy MODEL`, a folder or a name on the Hub.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.compared import read_set
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.report.table import markdown
from alignrec.pipeline.runtime.layout import Layout
from experiments.shared import opened

ITEMS = 50  # those with the shortest texts, as long ones may be cut
SHOWN = 12
NOTE = (
    "Cosines of {items} items. One of 1.00 names the recipe, unless that of shuffled items is "
    "as high."
)
load_tokenizer = cache(AutoTokenizer.from_pretrained)
load_processor = cache(AutoImageProcessor.from_pretrained)


def main(
    dataset: str,
    theirs: str,
    model: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    prompt: str = "",
) -> None:
    """Encode items in each way, and print the ways that come nearest to the vectors of a file."""
    _, layout, _ = opened(dataset, params, root, "identify")
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    vectors = read_set(theirs, layout, asins).vectors
    network = AutoModel.from_pretrained(model).eval()
    items = choose_items(layout, vectors, hasattr(network, "get_image_features"))
    made = [encode(model, network, item, prompt) for item in items]
    parts = {way: np.stack([rows[way] for rows in made]) for way in made[0]}

    wanted = unit_rows(vectors[[item["item_id"] for item in items]])[0]
    rows = []
    for way, candidate in list_ways(parts, wanted.shape[1]):
        candidate = unit_rows(candidate)[0]
        shuffled = (wanted * np.roll(candidate, 1, axis=0)).sum(axis=1)
        cosines = (wanted * candidate).sum(axis=1)
        rows.append((way, *(f"{x:.4f}" for x in (cosines.mean(), cosines.min(), shuffled.mean()))))
    rows.sort(key=lambda row: row[1], reverse=True)
    head = ("made of", "mean cosine", "lowest", "of shuffled items")
    print(markdown(head, rows[:SHOWN]), NOTE.format(items=len(items)), sep="\n\n")


def choose_items(layout: Layout, vectors: np.ndarray, seen: bool) -> list[dict[str, Any]]:
    """Return items with a vector and a text; if `seen`, also with an image."""
    items = io.read_table(layout.items, schemas.ITEMS, ["item_id", "text"]).to_pylist()
    images: list[bytes | None] = []
    for path in io.shards(layout.images, "images"):
        images += io.read_table(path, schemas.IMAGES, ["image"])["image"].to_pylist()
    chosen = [
        {**item, "image": image}
        for item, image, vector in zip(items, images, vectors, strict=True)
        if vector.any() and item["text"].strip() and (image or not seen)
    ]
    return sorted(chosen, key=lambda item: len(item["text"]))[:ITEMS]


@torch.inference_mode()
def encode(model: str, network: Any, item: Mapping[str, Any], prompt: str) -> dict[str, np.ndarray]:
    """Return the vectors of an item alone, float32 [W]: of its text by each pooling, of its image."""
    tokenizer = load_tokenizer(model)
    room = min(network.config.get_text_config().max_position_embeddings, tokenizer.model_max_length)
    text = prompt + item["text"]
    tokens = tokenizer(text, truncation=True, max_length=room, return_tensors="pt")
    if not hasattr(network, "get_image_features"):
        return {way: vector.numpy() for way, vector in pool_text(network(**tokens)).items()}

    process = load_processor(model)
    image = Image.open(BytesIO(item["image"])).convert("RGB")
    outputs = {
        "image": network.get_image_features(**process(images=image, return_tensors="pt")),
        "text": network.get_text_features(**tokens),
    }
    return {
        way: getattr(output, "pooler_output", output)[0].numpy() for way, output in outputs.items()
    }


def pool_text(output: Any) -> dict[str, Tensor]:
    hidden = output.last_hidden_state[0]
    pooled = {"text, mean": hidden.mean(0), "text, cls": hidden[0], "text, last token": hidden[-1]}
    pooler = getattr(output, "pooler_output", None)
    return pooled if pooler is None else pooled | {"text, pooler": pooler[0]}


def list_ways(parts: Mapping[str, np.ndarray], width: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield vectors of `width` columns: the first ones of each part, and image and text joined."""
    for way, part in parts.items():
        if part.shape[1] >= width:
            yield way, part[:, :width]
    if "image" not in parts:
        return

    units = {way: unit_rows(part)[0] for way, part in parts.items()}
    for scaling, pair in (("unscaled", parts), ("each of length 1", units)):
        if pair["image"].shape[1] == width:
            yield f"mean of image and text, {scaling}", pair["image"] + pair["text"]
        if 2 * pair["image"].shape[1] == width:
            yield f"image + text, {scaling}", np.hstack([pair["image"], pair["text"]])
            yield f"text + image, {scaling}", np.hstack([pair["text"], pair["image"]])


if __name__ == "__main__":
    typer.run(main)
