"""RQ-VAE-Recommender's raw folder, and the codes that its tokenizer would compute.

Format: EdoardoBotta/RQ-VAE-Recommender, data/amazon.py (raw/<split>/sequential_data.txt with a user and its items a
line, both from 1; datamaps.json; meta.json.gz, a Python dictionary a line) and modules/tokenizer/semids.py
(`cached_ids`: an item a row, its codes and a last one that tells equal ones apart).
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
    for features in content.features:
        np.save(folder / f"{features}.npy", content.matrix(features), allow_pickle=False)
    raw = folder / "raw" / content.name
    raw.mkdir(parents=True)
    items = content.items.select(["asin", "title", "brand", "categories"])
    numbers = {asin: str(i) for i, asin in enumerate(items["asin"].to_pylist(), start=1)}
    (raw / "datamaps.json").write_bytes(orjson.dumps({"item2id": numbers}))
    with (raw / "meta.json.gz").open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.writelines(_meta(row) for row in items.to_pylist())
    short = None if content.interactions is None else _write_sequences(raw / "sequential_data.txt", Sequences(content))
    write_mappings(folder, content.items, content.users)
    return _how(content, codes, short)


def _meta(row: dict[str, Any]) -> bytes:
    """Return a line of metadata: its reader evaluates it, so it is one Python literal of ASCII alone."""
    named = {"asin": row["asin"], "title": row["title"], "brand": row["brand"] or "Unknown", "price": ""}
    return f"{named | {'categories': [row['categories']]}!a}\n".encode("ascii")


def _write_sequences(path: Path, sequences: Sequences) -> int:
    short = 0
    with path.open("w", encoding="ascii") as file:
        for user, items in sequences.whole():
            if len(items) < SHORTEST:
                short += 1
            else:
                file.write(f"{user + 1} {' '.join(map(str, (items + 1).tolist()))}\n")
    return short


def _how(content: ExportContent, codes: Codes, short: int | None) -> str:
    name, made = content.name, codes.facts
    if short is None:
        users = f"Bring sequences of your own as `raw/{name}/sequential_data.txt`: a user and its items a line, from 1."
    else:
        users = "It splits sequences by itself: a user's last item is test, the one before valid."
        users += f" Users left out, as they have fewer than {SHORTEST} items: {short:,}." if short else ""
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
