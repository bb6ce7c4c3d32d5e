"""MiniOneRec's and LC-Rec's index: an item's semantic ID as tokens, its text, and users' sequences.

Format: AkaliKong/MiniOneRec, convert_dataset.py (index.json, item.json), and data/amazon18_data_process.py for
inter.json, which LC-Rec reads with the first two. LC-Rec's code has no licence and was not read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.errors import UserError
from pipeline.export.content import ExportContent, write_mappings

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRIPLET = 3
"""tokens of an ID in MiniOneRec: four of the dataset classes in its data.py read the first three, and no others"""


def write(content: ExportContent, folder: Path) -> str:
    name = content.name
    index = {str(item): tokens for item, tokens in enumerate(_tokens(content.coded_ids()))}
    _write_json(folder / f"{name}.index.json", index)
    _write_json(folder / f"{name}.item.json", {str(row["item_id"]): _texts(row) for row in content.items.to_pylist()})
    if content.interactions is not None:
        _write_json(folder / f"{name}.inter.json", _sequences(content))
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)
    sequences = "Bring sequences of your own as" if content.interactions is None else "Items by user and time are in"
    return f"""`{name}.index.json` has the tokens of an item; the last separates items of equal codes. {sequences}
`{name}.inter.json`.

LC-Rec takes this folder as `<path>/{name}`: `--dataset {name} --data_path <path> --index_file .index.json`; it splits
sequences by itself: a user's last item is test, the one before valid. MiniOneRec takes `--sid_index_path` and
`--item_meta_path`, and sequences split into `{name}.train.inter`, `{name}.valid.inter` and `{name}.test.inter`: a line
per user, history and target.
"""


def notes(content: ExportContent) -> list[str]:
    untitled = sum(not title.strip() for title in content.items["title"].to_pylist())
    said = [f"Items without a title, for which a stand-in says so: {untitled:,}."] if untitled else []
    _, group, counts = np.unique(content.coded_ids()[:, :TRIPLET], axis=0, return_inverse=True, return_counts=True)
    if shared := int((counts[group.reshape(-1)] > 1).sum()):
        said.append(
            f"Items that share their first {TRIPLET} tokens with another, as MiniOneRec reads no fourth: {shared:,}; "
            "with semantic_ids.levels: 2 the third token separates them."
        )
    return said


def _tokens(ids: np.ndarray) -> list[list[str]]:
    """Return `<a_12>` for an item's first code, `<b_3>` for the second, and so on: int32 [I, L + 1]."""
    return [[f"<{LETTERS[level]}_{code}>" for level, code in enumerate(row)] for row in ids.tolist()]


def _texts(row: dict[str, Any]) -> dict[str, str]:
    """Return an item's texts, each on one line: MiniOneRec writes titles into a tab separated file.

    An empty title would be one title of many items to it, and a target without a token.
    """
    title = row["title"].strip() or f"[item {row['item_id']} has no title]"
    texts = {"title": title, "description": row["description"], "brand": row["brand"]}
    return {key: " ".join(text.split()) for key, text in texts.items()} | {"categories": ", ".join(row["categories"])}


def _sequences(content: ExportContent) -> dict[str, list[int]]:
    """Return user -> items in the order of time; equal times keep the table's order."""
    table = content.interactions
    assert table is not None
    if content.clock() == "none" or table["timestamp"].null_count:
        raise UserError(f"{content.name}: sequences need an order, and the interactions have no timestamps")
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    order = np.lexsort((table["timestamp"].to_numpy(), user))  # stable
    users, starts = np.unique(user[order], return_index=True)
    parts = np.split(item[order], starts[1:])
    return {str(name): items.tolist() for name, items in zip(users.tolist(), parts, strict=bool(len(users)))}


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value))
