"""MiniOneRec and LC-Rec: items' semantic IDs as tokens, their texts, and users' sequences."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from alignrec.pipeline.export.content import ExportContent, write_mappings
from alignrec.pipeline.io.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# tokens of an ID that MiniOneRec reads: four of the dataset classes in its data.py use only the first three
TRIPLET = 3


# format: AkaliKong/MiniOneRec, convert_dataset.py and data/amazon18_data_process.py
def write_minionerec(content: ExportContent, folder: Path) -> str:
    name = content.name
    files: dict[str, dict[str, Any]] = {
        "index": {
            str(item): [f"<{LETTERS[level]}_{code}>" for level, code in enumerate(row)]
            for item, row in enumerate(_id_matrix(content).tolist())
        },
        "item": {str(row["item_id"]): _item_texts(row) for row in content.items.to_pylist()},
    }
    if content.interactions is not None:
        files["inter"] = _user_sequences(content)
    for kind, value in files.items():
        (folder / f"{name}.{kind}.json").write_bytes(orjson.dumps(value))
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)
    sequences = "Bring sequences of your own as" if content.interactions is None else "Items by user and time are in"
    return f"""`{name}.index.json` has the tokens of an item; the last separates items of equal codes. {sequences}
`{name}.inter.json`.

LC-Rec takes this folder as `<path>/{name}`, and splits leave-one-out: `--dataset {name} --data_path <path>
--index_file .index.json`. MiniOneRec takes `--sid_index_path`, `--item_meta_path`, and sequences that are split.
"""


def minionerec_notes(content: ExportContent) -> list[str]:
    untitled = sum(not title.strip() for title in content.items["title"].to_pylist())
    said = [f"Items without a title, for which a stand-in says so: {untitled:,}."] if untitled else []
    _, group, counts = np.unique(_id_matrix(content)[:, :TRIPLET], axis=0, return_inverse=True, return_counts=True)
    if shared := int((counts[group.reshape(-1)] > 1).sum()):
        said.append(
            f"Items that share their first {TRIPLET} tokens with another, as MiniOneRec reads no fourth: {shared:,}; "
            "with semantic_ids.levels: 2 the third token separates them."
        )
    return said


def _id_matrix(content: ExportContent) -> np.ndarray:
    """Return codes and suffixes, int32 [I, L + 1]."""
    assert content.codes is not None
    codes = np.array(content.codes["codes"].to_pylist(), np.int32).reshape(len(content.codes), -1)
    return np.column_stack([codes, content.codes["suffix"].to_numpy()])


def _item_texts(row: dict[str, Any]) -> dict[str, str]:
    # for MiniOneRec, all items without a title would share one
    title = row["title"].strip() or f"[item {row['item_id']} has no title]"
    texts = {"title": title, "description": row["description"], "brand": row["brand"]}
    return {key: " ".join(text.split()) for key, text in texts.items()} | {"categories": ", ".join(row["categories"])}


def _user_sequences(content: ExportContent) -> dict[str, list[int]]:
    table = content.interactions
    assert table is not None
    if content.clock() == "none" or table["timestamp"].null_count:
        raise UserError(f"{content.name}: sequences need an order, and the interactions have no timestamps")
    user, item = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    order = np.lexsort((table["timestamp"].to_numpy(), user))  # stable: ties keep the table's order
    sequences: dict[str, list[int]] = {}
    for owner, bought in zip(user[order].tolist(), item[order].tolist(), strict=True):
        sequences.setdefault(str(owner), []).append(bought)
    return sequences
