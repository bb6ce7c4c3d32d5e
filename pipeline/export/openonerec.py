"""OpenOneRec's Parquet files: which item has which triplet of codes, and what users had before and after.

Format: Kuaishou-OneRec/OpenOneRec, data/onerec_data/README.md and data/onerec_data/pretrain/video_rec.py (columns
`pid`, `sid`; `uid`, `split`, `hist_video_pid`, `target_video_pid`) and item_understand.py beside it (`pid`,
`dense_caption`), tokenizer/README.md (`pid`, `embedding`).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.export.codes import lists
from pipeline.export.content import SPLITS, ExportContent
from pipeline.export.sequences import Sequences
from pipeline.export.text import write_mappings

TRIPLET = 3
METADATA = pa.schema(
    [
        pa.field("uid", pa.int64()),
        pa.field("split", pa.int64()),
        pa.field("hist_video_pid", pa.list_(pa.int64())),
        pa.field("target_video_pid", pa.list_(pa.int64())),
    ]
)


def write(content: ExportContent, folder: Path) -> str:
    """Write the files; return how to read them. UserError if an ID has another number of codes than three."""
    codes = content.codes
    assert codes is not None
    if codes.facts.levels != TRIPLET:
        raise UserError(
            f"OpenOneRec reads {TRIPLET} codes an item, and these are {codes.facts.levels}; set semantic_ids.levels: 3"
        )
    pid = pa.array(range(len(content.items)), pa.int64())
    pq.write_table(pa.table({"pid": pid, "sid": lists(codes.matrix().astype(np.int64))}), folder / "pid2sid.parquet")
    captions = pa.array(_captions(content), pa.string())
    pq.write_table(pa.table({"pid": pid, "dense_caption": captions}), folder / "pid2caption.parquet")
    for features in content.features:
        table = pa.table({"pid": pid, "embedding": lists(content.matrix(features))})
        pq.write_table(table, folder / f"{features}.parquet")
    if content.interactions is not None:
        pq.write_table(_metadata(Sequences(content)), folder / "metadata.parquet")
    write_mappings(folder, content.items, content.users)
    return _how(content)


def notes(content: ExportContent) -> list[str]:
    """Return how many items share a triplet, and how many have no caption."""
    assert content.codes is not None
    apart = "Items that share their triplet with another, as it has no place for what tells them apart"
    blank = "Items without title and description, and so without a caption"
    counts = {apart: content.codes.shared(), blank: _captions(content).count(None)}
    return [f"{what}: {count:,}." for what, count in counts.items() if count]


def _captions(content: ExportContent) -> list[str | None]:
    """Return title and description of each item on one line; None where there is neither."""
    rows = content.items.select(["title", "description"]).to_pylist()
    return [" ".join(f"{row['title']} {row['description']}".split()) or None for row in rows]


def _metadata(sequences: Sequences) -> pa.Table:
    """Return a row a user and split: what the user had before, and what is to be predicted."""
    rows = [
        (user, SPLITS.index("train"), items[:-1].tolist(), items[-1:].tolist())
        for user, items in sequences.of({SPLITS.index("train")})
        if len(items) > 1
    ]
    for split in (1, 2):
        rows += [(u, split, history.tolist(), targets.tolist()) for u, history, targets in sequences.targets(split)]
    columns = zip(*rows, strict=True) if rows else [()] * len(METADATA)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, METADATA, strict=True)], schema=METADATA
    )


def _how(content: ExportContent) -> str:
    ids = """`pid` is our item_id, `uid` our user_id; `items.tsv` and `users.tsv` give the source's identifiers.
The file that bears the name of the feature set has the vectors, as its tokenizer reads them. In `pid2caption.parquet`,
`dense_caption` is title and description; its scripts pass over an item without.
"""
    if content.interactions is None:
        return f"{ids}Bring sequences of your own as `metadata.parquet`: {', '.join(METADATA.names)}.\n"
    return f"""{ids}
In `metadata.parquet` `split` is 0 train, 1 valid, 2 test; its scripts read 0. In its folder `data/onerec_data`:

```bash
python pretrain/video_rec.py --input metadata.parquet --pid2sid pid2sid.parquet --output_dir out
python sft/video_rec.py --input metadata.parquet --pid2sid pid2sid.parquet --output_dir out
python pretrain/item_understand.py --input pid2caption.parquet --pid2sid pid2sid.parquet --output_dir captions
python sft/item_understand.py --input pid2caption.parquet --pid2sid pid2sid.parquet --output_dir captions
```
"""
