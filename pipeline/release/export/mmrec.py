"""Export `mmrec`: MMRec's .inter file, settings and a feature file per modality.

MMRec's code is GPL and was not read; source kind `mmrec` reads these files.
"""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from alignrec.pipeline import io
from alignrec.pipeline.release.export.content import ExportContent, write_tsv, write_yaml
from alignrec.schemas import MODALITIES, variant

INTERACTION_COLUMNS = ["userID", "itemID", "rating", "timestamp", "x_label"]  # of .inter
SETTING_OF_MODALITY = {  # modality -> MMRec's setting that names its file
    "image": "vision_feature_file",
    "text": "text_feature_file",
}


def write_mmrec(content: ExportContent, folder: Path) -> tuple[str, list[str]]:
    _write_tables(content, folder)
    content.save_vectors(folder)
    chosen = _choose_sets(content)
    for modality, features in chosen.items():
        io.write_npy(folder / f"{modality}_feat.npy", content.matrix(features))
    write_yaml(folder / f"{content.name}.yaml", _make_settings(content, chosen))

    notes = []
    sets = {*chosen.values()}
    if len(sets) == 1:
        notes.append(
            f"`{sets.pop()}` is both `image_feat.npy` and `text_feat.npy`, "
            "as no exported sets are of one modality each."
        )
    return _describe_usage(content, chosen), notes


def _write_tables(content: ExportContent, folder: Path) -> None:
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", "timestamp", "split"]
        interactions = content.interactions.select(columns)
        write_tsv(folder / f"{content.name}.inter", interactions, INTERACTION_COLUMNS)
    items = content.items.select(["asin", "item_id"])
    write_tsv(folder / "i_id_mapping.csv", items, ["asin", "itemID"])
    if content.users is not None:
        users = content.users.select(["user", "user_id"])
        write_tsv(folder / "u_id_mapping.csv", users, ["user_id", "userID"])

    urls = [[url] if url else [] for url in content.items["image_url"].to_pylist()]
    fields = ["asin", "title", "brand", "categories", "description"]
    listed = content.items.select(["item_id", *fields])
    listed = listed.append_column("imUrl", pa.array(urls, pa.list_(pa.string())))
    listed = listed.rename_columns(["itemID", *fields, "imUrl"])
    lines = [orjson.dumps(row) + b"\n" for row in listed.to_pylist()]
    (folder / "items.jsonl").write_bytes(b"".join(lines))


def _make_settings(content: ExportContent, chosen: dict[str, str]) -> dict[str, Any]:
    user, item, _, time, label = INTERACTION_COLUMNS
    settings = {
        "field_separator": "\t",
        "USER_ID_FIELD": user,
        "ITEM_ID_FIELD": item,
        "TIME_FIELD": time,
        "inter_splitting_label": label,
    }
    if content.interactions is not None:
        settings = {"inter_file_name": f"{content.name}.inter", **settings}
    for modality in chosen:
        settings[SETTING_OF_MODALITY[modality]] = f"{modality}_feat.npy"
    return settings


def _choose_sets(content: ExportContent) -> dict[str, str]:
    """Return the set of each modality.

    Single-modality sets if both modalities have one, otherwise the first set; a set named
    `image_feat` or `text_feat` stays what it is.
    """
    names = list(content.features)
    pairs = [{"image": variant(name, "text"), "text": variant(name, "image")} for name in names]
    chosen = dict.fromkeys(MODALITIES, names[0]) if names else {}
    for pair in [*pairs, _find_single(content)]:
        if len(pair) == len(MODALITIES) and set(names).issuperset(pair.values()):
            chosen = pair
            break

    for modality in chosen:
        if f"{modality}_feat" in content.features:
            chosen[modality] = f"{modality}_feat"
    return chosen


def _find_single(content: ExportContent) -> dict[str, str]:
    """Return the first set that was encoded from one modality only, by modality."""
    single: dict[str, str] = {}
    for name, table in content.features.items():
        used = [modality for modality in MODALITIES if pc.any(table[f"has_{modality}"]).as_py()]
        if len(used) == 1:
            single.setdefault(used[0], name)
    return single


def _describe_usage(content: ExportContent, chosen: dict[str, str]) -> str:
    files = [f"`{modality}_feat.npy` is `{features}`" for modality, features in chosen.items()]
    both = ", ".join(files)
    both = both and f"MMRec wants a file of images and one of texts: {both}."
    if content.interactions is None:
        return f"""In MMRec: put the .npy files into the folder of your interactions, \
numbered as in `i_id_mapping.csv`
(else export with `--order`), and their names, as in `{content.name}.yaml`, \
into its settings. {both}
"""

    source = {
        "kind": "mmrec",
        "interactions": f"{content.name}.inter",
        "items": "items.jsonl",
        "features": {name: f"{name}.npy" for name in content.features},
        "timestamps": content.clock(),
    }
    settings = yaml.safe_dump({"sources": {content.name: source}}, sort_keys=False)
    return f"""In MMRec: put this folder as `{content.name}` into its data folder, and \
`{content.name}.yaml` into
`configs/dataset`. {both}

In alignrec, with paths relative to where it runs:

```yaml
{settings}```
"""
