"""MiniOneRec's and LC-Rec's folder: an item's ID as tokens, its text, and users' sequences.

Format: AkaliKong/MiniOneRec, README.md (sections 2, 3 and 4), convert_dataset.py (`load_dataset` reads index.json,
item.json and the three .inter files), data/Amazon/index/*.index.json, and data/amazon18_data_process.py for inter.json,
which LC-Rec reads with the first two. LC-Rec's code has no licence and was not read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.export.codes import Codes, tokens
from pipeline.export.content import SPLITS, ExportContent
from pipeline.export.sequences import Sequences
from pipeline.export.text import write_mappings

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
TRIPLET = 3
"""tokens of an ID in MiniOneRec: four of the dataset classes in its data.py read the first three, and no others"""
LONGEST = 10
"""items of a history at most, the latest; MiniOneRec's own data has as many"""


def write(content: ExportContent, folder: Path) -> str:
    codes, name = content.codes, content.name
    assert codes is not None
    if codes.facts.levels == TRIPLET:
        _json(folder / f"{name}.index.json", _index(content.settled.codes))
    _json(folder / f"{name}.unique.index.json", _index(codes.numbered()))
    _json(folder / f"{name}.item.json", {str(row["item_id"]): _item(row) for row in content.items.to_pylist()})
    if content.interactions is not None:
        sequences = Sequences(content)
        _json(folder / f"{name}.inter.json", {str(user): items.tolist() for user, items in sequences.whole()})
        for number, split in enumerate(SPLITS):
            with (folder / f"{name}.{split}.inter").open("w", encoding="utf-8") as file:
                file.write(HEADER)
                for user, history, target in sequences.examples(number):
                    file.write(f"{user}\t{' '.join(map(str, history[-LONGEST:].tolist()))}\t{target}\n")
    content.save_vectors(folder)
    write_mappings(folder, content.items, content.users)
    return _how(content, codes)


def notes(content: ExportContent) -> list[str]:
    assert content.codes is not None
    untitled = sum(not title.strip() for title in content.items["title"].to_pylist())
    blank = [f"Items without a title, for which a stand-in says so: {untitled:,}."] if untitled else []
    if (levels := content.codes.facts.levels) != TRIPLET:
        other = f"MiniOneRec reads {TRIPLET} codes an item, and these are {levels}"
        return [f"{other}: for it, set semantic_ids.levels: {TRIPLET}. LC-Rec reads them.", *blank]
    settled = content.settled
    note = f"Items that share their {TRIPLET} tokens with another, as MiniOneRec reads no fourth: {settled.shared:,}."
    return [settled.cost] * bool(settled.cost) + [note] * bool(settled.shared) + blank


def _index(codes: np.ndarray) -> dict[str, list[str]]:
    return {str(i): of_item for i, of_item in enumerate(tokens(codes))}


def _json(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value))


def _item(row: dict[str, Any]) -> dict[str, str]:
    """Return an item's texts, each on one line: MiniOneRec writes titles into a tab separated file.

    An empty title would be one title of many items to it, and a target without a token.
    """
    title = row["title"].strip() or f"[item {row['item_id']} has no title]"
    texts = {"title": title, "description": row["description"], "brand": row["brand"]}
    return {key: " ".join(text.split()) for key, text in texts.items()} | {"categories": ", ".join(row["categories"])}


def _how(content: ExportContent, codes: Codes) -> str:
    name = content.name
    if content.interactions is None:
        return f"""{_tokens(name, codes)}
Bring sequences of your own as `{name}.train.inter`, `{name}.valid.inter` and
`{name}.test.inter`, with the columns {HEADER.strip().replace(chr(9), ", ")}.
"""
    return f"""{_tokens(name, codes)}
A line of `{name}.train.inter` and of the other two is a user, the latest {LONGEST} items of the history,
and the item to predict; the history of test holds valid. The .npy file has the vectors.
{_minionerec(name) if codes.facts.levels == TRIPLET else ""}
LC-Rec takes this folder as `<path>/{name}`: `--dataset {name} --data_path <path> --index_file .unique.index.json`. It
splits `{name}.inter.json` by itself: a user's last item is test, the one before valid.
"""


def _tokens(name: str, codes: Codes) -> str:
    levels = codes.facts.levels
    own = f"`{name}.index.json` has {TRIPLET} tokens an item, and as few equal ones as its codes allow.\n"
    first = own if levels == TRIPLET else ""
    return f"""{first}`{name}.unique.index.json` has {levels + 1} tokens; the last separates items of equal codes."""


def _minionerec(name: str) -> str:
    return f"""
In MiniOneRec's repository:

```bash
python convert_dataset.py --dataset_name {name} --data_dir <this folder> --output_dir data/{name}
```

Its scripts read no arguments. Edit in `sft.sh`, and likewise in `rl.sh` and `evaluate.sh`:

- the loop: `for category in "{name}"`;
- the paths of train, valid, test and info files: `./data/{name}/` in place of `./data/Amazon/`;
- `--sid_index_path <this folder>/{name}.index.json` and `--item_meta_path <this folder>/{name}.item.json`.

In `sft.py`, `rl.py` and `evaluate.py`, `category_dict` must name `{name}` too. Then run `bash sft.sh`.
"""
