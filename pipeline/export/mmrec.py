"""MMRec: an .inter file with split labels, .npy files, id mappings and settings; source kind `mmrec` reads them."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.encode.params import MODALITIES, variant
from alignrec.pipeline.export.content import ExportContent, write_tsv

# MMRec's code is GPL and was not read
INTER = ["userID", "itemID", "rating", "timestamp", "x_label"]


def write(content: ExportContent, folder: Path) -> str:
    name, items = content.name, content.items
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", "timestamp", "split"]
        write_tsv(folder / f"{name}.inter", content.interactions.select(columns), INTER)
    write_tsv(folder / "i_id_mapping.csv", items.select(["asin", "item_id"]), ["asin", "itemID"])
    if content.users is not None:
        write_tsv(folder / "u_id_mapping.csv", content.users.select(["user", "user_id"]), ["user_id", "userID"])
    fields = ["itemID", "asin", "title", "brand", "categories", "description", "imUrl"]
    urls = [[url] if url else [] for url in items["image_url"].to_pylist()]
    listed = pa.table([*(items[c] for c in ("item_id", *fields[1:-1])), pa.array(urls, pa.list_(pa.string()))], fields)
    (folder / "items.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in listed.to_pylist()))
    content.save_vectors(folder)
    chosen = _modality_files(content)
    for modality, features in chosen.items():
        io.write_npy(folder / f"{modality}_feat.npy", content.matrix(features))
    files = {"image": "vision_feature_file", "text": "text_feature_file"}
    settings: dict[str, Any] = {
        **({} if content.interactions is None else {"inter_file_name": f"{name}.inter"}),
        "field_separator": "\t",
        "USER_ID_FIELD": INTER[0],
        "ITEM_ID_FIELD": INTER[1],
        "TIME_FIELD": INTER[3],
        "inter_splitting_label": INTER[4],
        **{files[modality]: f"{modality}_feat.npy" for modality in chosen},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return _describe_use(content, chosen)


def _modality_files(content: ExportContent) -> dict[str, str]:
    """Return the set of each modality: single-modality sets if both have one, otherwise the first set."""
    single: dict[str, str] = {}
    for name, table in content.features.items():
        used = [modality for modality in MODALITIES if pc.any(table[f"has_{modality}"]).as_py()]
        if len(used) == 1:
            single.setdefault(used[0], name)
    masked = [{"image": variant(name, "text"), "text": variant(name, "image")} for name in content.features]
    first = {modality: name for name in list(content.features)[:1] for modality in MODALITIES}
    pairs = (pair for pair in [*masked, single] if len(pair) == 2 and content.features.keys() >= set(pair.values()))
    chosen = next(pairs, first)
    return {m: name if f"{m}_feat" not in content.features else f"{m}_feat" for m, name in chosen.items()}


def notes(content: ExportContent) -> list[str]:
    sets = {*_modality_files(content).values()}
    twice = "is both `image_feat.npy` and `text_feat.npy`, as no exported sets are of one modality each."
    return [f"`{sets.pop()}` {twice}"] if len(sets) == 1 else []


def _describe_use(content: ExportContent, chosen: dict[str, str]) -> str:
    held = ", ".join(f"`{modality}_feat.npy` is `{features}`" for modality, features in chosen.items())
    both = held and f"MMRec wants a file of images and one of texts: {held}."
    if content.interactions is None:
        return f"""In MMRec: put the .npy files into the folder of your interactions, numbered as in `i_id_mapping.csv`
(else export with `--order`), and their names, as in `{content.name}.yaml`, into its settings. {both}
"""
    source = {
        "kind": "mmrec",
        "interactions": f"{content.name}.inter",
        "items": "items.jsonl",
        "features": {name: f"{name}.npy" for name in content.features},
        "timestamps": content.clock(),
    }
    settings = yaml.safe_dump({"sources": {content.name: source}}, sort_keys=False)
    return f"""In MMRec: put this folder as `{content.name}` into its data folder, and `{content.name}.yaml` into
`configs/dataset`. {both}

In alignrec, with paths relative to where it runs:

```yaml
{settings}```
"""
