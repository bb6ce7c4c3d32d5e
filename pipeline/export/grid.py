"""GRID's folder: sequences and texts as TFRecord files, and codes and vectors as tensors.

Format: snap-research/GRID, README.md and configs/experiment/*.yaml: the folders training, evaluation, testing and
items; `user_id` and `sequence_data`, whose last item is to be predicted; `id` and `text`; codes that
`rkmeans_inference_flat.yaml` completes by one that tells items apart, and transposes. No code of GRID was read for
this: its licence is for non-commercial research.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from pipeline.export import tfrecord
from pipeline.export.codes import Codes
from pipeline.export.content import SPLITS, ExportContent
from pipeline.export.sequences import Sequences
from pipeline.export.text import write_mappings

FOLDERS = {"train": "training", "valid": "evaluation", "test": "testing"}
PART = "part-00000.tfrecord.gz"


def write(content: ExportContent, folder: Path) -> str:
    """Write the files; return how to read them. Needs torch."""
    codes = content.codes
    assert codes is not None
    _save(codes.whole().T.astype(np.int64), folder / "semantic_ids.pt")
    for features in content.features:
        _save(content.matrix(features), folder / f"{features}.pt")
    texts = content.items.select(["item_id", "title"]).to_pylist()
    tfrecord.write(folder / "items" / PART, ({"id": [r["item_id"]], "text": r["title"].encode()} for r in texts))
    if content.interactions is not None:
        for number, split in enumerate(SPLITS):
            tfrecord.write(folder / FOLDERS[split] / PART, _rows(Sequences(content), number))
    write_mappings(folder, content.items, content.users)
    return _how(content, codes)


def _save(x: np.ndarray, path: Path) -> None:
    """Write an array as a tensor."""
    import torch  # other formats do without

    data = BytesIO()  # torch says of a full disk that a file is not as it should be
    torch.save(torch.from_numpy(np.array(x, order="C")), data)
    path.write_bytes(data.getbuffer())


def _rows(sequences: Sequences, split: int) -> Iterator[dict[str, list[int]]]:
    """Yield users with their items: of train all, of valid and test the history and then the one to predict."""
    if split == SPLITS.index("train"):
        for user, items in sequences.of({split}):
            if len(items) > 1:
                yield {"user_id": [user], "sequence_data": items.tolist()}
    else:
        for user, history, target in sequences.examples(split):
            yield {"user_id": [user], "sequence_data": [*history.tolist(), target]}


def _how(content: ExportContent, codes: Codes) -> str:
    rows, made = codes.whole().shape[1], codes.facts
    features = next(iter(content.features), "features")
    own = "" if content.interactions is not None else "Bring sequences of your own: training, evaluation, testing.\n"
    return f"""`semantic_ids.pt` is int64 [{rows}, {len(content.items)}]: a row a code, a column an item.
`{features}.pt` is float32, a row an item. `id` and `user_id` are our numbers; `items.tsv` and `users.tsv` give the
source's identifiers.
{own}
In GRID's repository, to train a recommender on these codes, or codebooks of its own on these vectors:

```bash
python -m src.train experiment=tiger_train_flat data_dir=<this folder> \\
    semantic_id_path=<this folder>/semantic_ids.pt num_hierarchies={rows}
python -m src.train experiment=rkmeans_train_flat data_dir=<this folder> embedding_path=<this folder>/{features}.pt \\
    embedding_dim={made.width} num_hierarchies={made.levels} codebook_width={made.codes}
```

The largest code here is {int(codes.whole().max())}; `model.huggingface_model.config.vocab_size` is 256 in its settings.
"""
