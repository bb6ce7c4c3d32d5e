"""RQ-VAE-Recommender's raw folder, and the codes that its tokenizer would compute.

Format: EdoardoBotta/RQ-VAE-Recommender, data/amazon.py (raw/<split>/sequential_data.txt with a user and its items a
line, both from 1; datamaps.json; meta.json.gz, a Python dictionary a line) and modules/tokenizer/semids.py
(`cached_ids`: an item a row, its codes and a last one that separates equal ones).
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.export.codes import Codes
from pipeline.export.content import ExportContent
from pipeline.export.sequences import Sequences
from pipeline.export.text import write_mappings

SHORTEST = 3
"""items of a user at least: the last is test, the one before valid"""


def write(content: ExportContent, folder: Path) -> str:
    codes = content.codes
    assert codes is not None
    np.save(folder / "semantic_ids.npy", codes.numbered().astype(np.int64), allow_pickle=False)
    content.save_vectors(folder)
    raw = folder / "raw" / content.name
    raw.mkdir(parents=True)
    items = content.items.select(["asin", "title", "brand", "categories"])
    numbers = {asin: str(i) for i, asin in enumerate(items["asin"].to_pylist(), start=1)}
    (raw / "datamaps.json").write_bytes(orjson.dumps({"item2id": numbers}))
    with (raw / "meta.json.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.writelines(_meta(row) for row in items.to_pylist())
    write_mappings(folder, content.items, content.users)
    return _how(content, codes, _write_sequences(content, raw / "sequential_data.txt"))


def _meta(row: dict[str, Any]) -> bytes:
    """Return a line of metadata, a Python literal in ASCII, as its reader evaluates it."""
    named = {"asin": row["asin"], "title": row["title"], "brand": row["brand"] or "Unknown", "price": ""}
    return f"{named | {'categories': [row['categories']]}!a}\n".encode("ascii")


def _write_sequences(content: ExportContent, path: Path) -> str:
    if content.interactions is None:
        return f"Bring sequences of your own as `raw/{content.name}/{path.name}`: a user and its items a line, from 1."
    lines = {user: " ".join(map(str, (items + 1).tolist())) for user, items in Sequences(content).whole()}
    kept = [f"{user + 1} {line}\n" for user, line in lines.items() if line.count(" ") + 1 >= SHORTEST]
    path.write_text("".join(kept), encoding="ascii")
    split = "It splits sequences by itself: a user's last item is test, the one before valid."
    short = len(lines) - len(kept)
    return split + (f" Users left out, as they have fewer than {SHORTEST} items: {short:,}." if short else "")


def _how(content: ExportContent, codes: Codes, users: str) -> str:
    name, made = content.name, codes.facts
    return f"""{users}

`raw/{name}` takes the place of its download. In a `.gin` file:

```
train.dataset_folder="<this folder>"
train.dataset_split="{name}"
train.vae_codebook_size={made.codes}
train.vae_n_layers={made.levels}
train.pretrained_rqvae_path=None
```

`semantic_ids.npy` takes the place of what its RQ-VAE makes. In `train_decoder.py`, instead of the line with
`precompute_corpus_ids`:

```python
import numpy as np, torch

cached_ids = torch.from_numpy(np.load("semantic_ids.npy"))  # tokenizer.cached_ids = cached_ids.to(device)
```
"""
