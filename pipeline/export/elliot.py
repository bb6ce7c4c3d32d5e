"""Elliot's fixed split: three headerless files, and a folder a feature set with a .npy file an item (VisualAttribute).

Format: https://elliot.readthedocs.io/en/latest/guide/config.html and guide/loading.html; its readers are
elliot/dataset/dataset.py (`fixed`: tab separated, no header) and dataset/modular_loaders/visual/visual_attribute.py
(one array [F] in <item>.npy). Elliot 0.3.1 takes a text for a path, and reads it from the configuration's folder, only
if it begins with a dot or looks like a file's name: hence `./`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.export.content import SPLITS, ExportContent
from pipeline.export.text import whole_ratings, write_mappings, write_tsv

FILES = {"train": "train.tsv", "valid": "validation.tsv", "test": "test.tsv"}


def write(content: ExportContent, folder: Path) -> str:
    if content.interactions is not None:
        columns = ["user_id", "item_id", "rating", *(["timestamp"] if content.known("timestamp") else [])]
        for number, split in enumerate(SPLITS):
            write_tsv(folder / FILES[split], whole_ratings(content.split(number)).select(columns), None)
    for features in content.features:
        of_set = folder / "features" / features
        of_set.mkdir(parents=True)
        for i, row in enumerate(content.matrix(features)):  # Elliot opens a file an item
            np.save(of_set / f"{i}.npy", row, allow_pickle=False)
    write_mappings(folder, content.items, content.users)
    (folder / f"{content.name}.yml").write_text(yaml.safe_dump(_settings(content), sort_keys=False), encoding="utf-8")
    missing = "" if content.interactions is not None else "It names no split: add the paths of your own.\n"
    return f"""`{content.name}.yml` is the part of a configuration that reads the data, with paths from this folder;
it takes the first feature set: for another, change `visual_features`. Add evaluation and models. An unknown rating
is 1.
{missing}`items.tsv` and `users.tsv` give the source's identifiers.
"""


def _settings(content: ExportContent) -> dict[str, Any]:
    keys = {"train": "train_path", "valid": "validation_path", "test": "test_path"}
    paths = {keys[split]: f"./{name}" for split, name in FILES.items() if content.interactions is not None}
    data: dict[str, Any] = {"strategy": "fixed", **paths}
    for features in list(content.features)[:1]:
        loader = {"dataloader": "VisualAttribute", "visual_features": f"./features/{features}/"}
        data["side_information"] = [loader]
    return {"experiment": {"data_config": data, "dataset": content.name}}
