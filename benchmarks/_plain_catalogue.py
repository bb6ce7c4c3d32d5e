"""What notebooks do: pandas, Pillow, sentence-transformers and a loop of torch, with everything whole in memory.

Letters: I items, F width of the features. Libraries are imported where they are used: who starts processes stays small.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks import _catalogue

if TYPE_CHECKING:
    import pandas as pd
    import torch

CORE, BATCH, NEIGHBOURS = 5, 32, 10
"""interactions that a user and an item must have; items a batch, as sentence-transformers has it; neighbours an item"""
WIDTH, SIDE, PATCH, TOKENS = 64, 32, 8, 64
"""of the networks: numbers a vector, pixels an image and a patch, tokens a text"""
TEXT, IMAGE = "text", "image"  # folders of the networks


def write_networks(folder: Path) -> None:
    """Write two networks of random weights, as people publish theirs: BERT of sentence-transformers, and DINOv2."""
    import torch
    import transformers as t
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    kinds = _catalogue.CATEGORIES
    known = [f"w{i}" for i in range(_catalogue.WORDS + 20 * kinds)] + [f"c{i}" for i in range(kinds)]
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known])}
    bert = t.BertConfig(vocab_size=len(vocab), intermediate_size=2 * WIDTH, max_position_embeddings=TOKENS, **shape)
    t.BertModel(bert).save_pretrained(folder / "bert")
    t.BertTokenizer(vocab=vocab).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(WIDTH), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / TEXT))
    t.Dinov2Model(t.Dinov2Config(image_size=SIDE, patch_size=PATCH, **shape)).save_pretrained(folder / IMAGE)
    edges: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    t.BitImageProcessor(**edges).save_pretrained(folder / IMAGE)


def interactions(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the k-core with ids and split, and the items' names by id."""
    import pandas as pd

    frame = pd.read_parquet(folder / _catalogue.INTERACTIONS)
    while True:
        counts = [frame[column].map(frame[column].value_counts()) for column in ("user", "item")]
        kept = (counts[0] >= CORE) & (counts[1] >= CORE)
        if kept.all():
            break
        frame = frame[kept]
    frame = frame.sort_values("timestamp")
    (frame["user_id"], _), (frame["item_id"], names) = pd.factorize(frame["user"]), pd.factorize(frame["item"])
    place = frame.groupby("user_id").cumcount(ascending=False)
    frame["split"] = np.select([place == 0, place == 1], [2, 1], 0)  # the last to test, the one before to valid
    return frame, names.tolist()


def items(folder: Path, names: list[str]) -> list[str]:
    """Return each item's text, its parts as sentences."""
    import pandas as pd

    table = pd.read_json(folder / _catalogue.ITEMS, lines=True, dtype={"item": str}).set_index("item").loc[names]
    parts = table["title"], table["categories"].str.join(" "), table["description"]
    return [f"{'. '.join(text)}." for text in zip(*parts, strict=True)]


def images(folder: Path, names: list[str]) -> list[np.ndarray]:
    """Return each item's image, uint8 [side, side, 3]."""
    with zipfile.ZipFile(folder / _catalogue.IMAGES) as archive:
        return [np.array(Image.open(archive.open(f"{name}.jpg")).convert("RGB")) for name in names]


def encode(networks: Path, texts: list[str], pictures: list[np.ndarray]) -> np.ndarray:
    """Return vectors of texts and images side by side, float32 [I, F]."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoImageProcessor, AutoModel

    by_text = SentenceTransformer(str(networks / TEXT), device="cpu").encode(texts, batch_size=BATCH)
    network = AutoModel.from_pretrained(networks / IMAGE).eval()
    process, vectors = AutoImageProcessor.from_pretrained(networks / IMAGE), []
    for start in range(0, len(pictures), BATCH):
        pixels = process(pictures[start : start + BATCH], return_tensors="pt")
        with torch.no_grad():
            vectors.append(network(**pixels).pooler_output)
    return np.concatenate([by_text, torch.cat(vectors).numpy()], axis=1)


def graph(features: np.ndarray) -> torch.Tensor:
    """Return each item's nearest by cosine, itself first, int64 [I, NEIGHBOURS]."""
    import torch

    unit = torch.nn.functional.normalize(torch.from_numpy(features))
    return (unit @ unit.T).topk(NEIGHBOURS).indices  # of [I, I]
