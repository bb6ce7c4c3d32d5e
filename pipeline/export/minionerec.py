"""MiniOneRec's and LC-Rec's folder: an item's ID as tokens, its text, and users' sequences.

Format: AkaliKong/MiniOneRec, README.md (sections 2, 3 and 4), convert_dataset.py (`load_dataset` reads index.json,
item.json and the three .inter files), data/Amazon/index/*.index.json, and data/amazon18_data_process.py for inter.json,
which LC-Rec reads with the first two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.export.codes import Codes
from pipeline.export.content import SPLITS, ExportContent
from pipeline.export.sequences import Sequences
from pipeline.export.text import write_mappings

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
LONGEST = 10
"""items of a history at most, the latest; MiniOneRec's own data has as many"""


def write(content: ExportContent, folder: Path) -> str:
    """Write the files; return how to read them."""
    codes, name = content.codes, content.name
    assert codes is not None
    _json(folder / f"{name}.index.json", {str(i): tokens for i, tokens in enumerate(codes.tokens())})
    _json(folder / f"{name}.item.json", {str(row["item_id"]): _item(row) for row in content.items.to_pylist()})
    if content.interactions is not None:
        sequences = Sequences(content)
        _json(folder / f"{name}.inter.json", {str(user): items.tolist() for user, items in sequences.whole()})
        for number, split in enumerate(SPLITS):
            with (folder / f"{name}.{split}.inter").open("w", encoding="utf-8") as file:
                file.write(HEADER)
                for user, history, target in sequences.examples(number):
                    file.write(f"{user}\t{' '.join(map(str, history[-LONGEST:].tolist()))}\t{target}\n")
    for features in content.features:
        np.save(folder / f"{features}.npy", content.matrix(features), allow_pickle=False)
    write_mappings(folder, content.items, content.users)
    return _how(content, codes)


def _json(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value))


def _item(row: dict[str, Any]) -> dict[str, str]:
    """Return an item's texts, each on one line: MiniOneRec writes titles into a tab separated file."""
    texts = {"title": row["title"], "description": row["description"], "brand": row["brand"]}
    return {key: " ".join(text.split()) for key, text in texts.items()} | {"categories": ", ".join(row["categories"])}


def _how(content: ExportContent, codes: Codes) -> str:
    name = content.name
    tokens = f"`{name}.index.json` has {codes.whole().shape[1]} tokens an item."
    if content.interactions is None:
        return f"""{tokens} Bring sequences of your own as `{name}.train.inter`, `{name}.valid.inter` and
`{name}.test.inter`, with the columns {HEADER.strip().replace(chr(9), ", ")}.
"""
    return f"""{tokens} A line of `{name}.train.inter` and of the other two is a user, the latest {LONGEST} items of the
history, and the item to predict; the history of test holds valid. The .npy file has the vectors.

In MiniOneRec's repository, where `category_dict` of `sft.py` and `rl.py` must name `{name}` too:

```bash
python convert_dataset.py --dataset_name {name} --data_dir <this folder> --output_dir data/{name}
bash sft.sh --sid_index_path <this folder>/{name}.index.json --item_meta_path <this folder>/{name}.item.json
```

LC-Rec takes this folder as `<path>/{name}`: `--dataset {name} --data_path <path> --index_file .index.json`. It splits
`{name}.inter.json` by itself: a user's last item is test, the one before valid.
"""
