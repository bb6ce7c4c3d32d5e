"""Every parameter that a page names exists: keys in inline code, `-S` options and blocks of YAML."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from commands import blocks
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from alignrec.commands.params import SECTIONS, Params, load
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.names import KINDS
from alignrec.pipeline.models import MODELS, RELEASED
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.code import ROOT
from alignrec.pipeline.runtime.section import Section
from alignrec.pipeline.runtime.yaml_files import EXTENDS, merge
from alignrec.pipeline.sources.base import SOURCES

PAGES = {
    path.name: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
FENCED = re.compile(r"```.*?```", re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
DOTTED = re.compile(r"[a-z]\w*(\.[\w-]+)+")
PAIR = re.compile(r"[a-z][\w.-]*: .+", re.DOTALL)
OPTION = re.compile(r"-S ([\w.-]+)=")


class Train(TrainSettings, MODELS[RELEASED].Params):  # type: ignore[name-defined,misc]
    """Section `train`: its own keys, and the model's."""


FILES = {"csv", "json", "jsonl", "md", "npy", "parquet", "tsv", "zip"}
"""endings of files that are named like sections"""
PLUG_INS = {"encoders: {letters: {scale: 2.0}}"}
"""keys of CONTRIBUTING's package, which tests/test_newcomer.py loads"""

CLASSES: dict[str, list[type[Section]]] = {
    "models": [MODELS[name].Params for name in MODELS.built_in],
    "encoders": [ENCODERS[name].params for name in ENCODERS.built_in],
    "sources": [SOURCES[name] for name in SOURCES.built_in],
    "sets": [kind.params for kind in KINDS.values()],
}
MAPPINGS = {
    ("encoders",): "encoders",
    ("sources",): "sources",
    ("combine", "sets"): "sets",
    ("benchmark", "overrides"): "models",
    ("benchmark", "ablations"): "models",
    ("search", "spaces"): "models",
}
"""keys that map a name of the user's to keys of these classes"""
WITH_KIND = {"encoders", "sources", "sets"}

BASES: dict[str, dict[str, Any]] = {
    "regenerate-baby.md": {"pretrain": {"size": "base"}},
}
"""what the page's blocks are laid over, besides a dataset"""


def fields_of(classes: list[type[Section]]) -> dict[str, list[FieldInfo]]:
    fields: dict[str, list[FieldInfo]] = {}
    for kind in classes:
        for name, field in kind.model_fields.items():
            fields.setdefault(field.alias or name, []).append(field)
    return fields


def sections() -> dict[str, type[Section]]:
    return {**SECTIONS, "train": Train}


EVERY = fields_of([*sections().values(), *(kind for kinds in CLASSES.values() for kind in kinds)])


def is_key(path: list[str]) -> bool:
    """Whether a path leads to a key of params.yaml."""
    if path == [EXTENDS] or len(path) == 1:
        return path[0] in (EXTENDS, *Params.model_fields)
    for prefix, classes in MAPPINGS.items():
        if tuple(path[: len(prefix)]) == prefix and len(path) > len(prefix) + 1:
            key = path[len(prefix) + 1]
            return key in fields_of(CLASSES[classes]) or (key == "kind" and classes in WITH_KIND)
        if tuple(path) == prefix or tuple(path[:-1]) == prefix:
            return True
    kind: Any = sections().get(path[0])
    for key in path[1:]:
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return True  # within a mapping of free names
        if key not in fields_of([kind]):
            return False
        kind = fields_of([kind])[key][0].annotation
    return path[0] in sections()


def paths_of(mapping: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[list[str]]:
    for key, value in mapping.items():
        path = (*before, *key.split("."))
        if isinstance(value, dict) and value:
            yield from paths_of(value, path)
        else:
            yield [*path]


def is_valid(key: str, value: Any) -> bool:
    """Whether a class has the key and accepts the value."""
    for field in EVERY[key]:
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        try:
            TypeAdapter(annotation).validate_python(value, strict=True)
            return True
        except ValidationError:
            continue
    return False


def wrong_keys(page: str) -> list[str]:
    """Return the spans and options of a page that name no key."""
    wrong = []
    for span in SPAN.findall(FENCED.sub("", page)):
        first, last = span.partition(".")[0], span.rpartition(".")[2]
        if DOTTED.fullmatch(span):
            if first in Params.model_fields and last not in FILES and not is_key(span.split(".")):
                wrong.append(span)
        elif PAIR.fullmatch(span) and span not in PLUG_INS and not is_setting(span):
            wrong.append(span)
    wrong += [f"-S {option}" for option in OPTION.findall(page) if not is_key(option.split("."))]
    return wrong


def is_setting(span: str) -> bool:
    """Whether YAML in a sentence sets keys: by their path, of a section, or of a set in `combine.sets`."""
    mapping = yaml.safe_load(span.replace(", ...", ""))
    for path in paths_of(mapping):
        first = path[0]
        if first in (EXTENDS, *Params.model_fields):
            valid = is_key(path)
        elif first in EVERY:
            valid = "..." in span or is_valid(first, mapping[first])
        else:
            valid = first in KINDS
        if not valid:
            return False
    return True


@pytest.mark.parametrize("page", PAGES)
def test_keys_in_sentences_exist(page: str) -> None:
    assert wrong_keys(PAGES[page]) == []


YAML = [(page, block) for page, text in PAGES.items() for block in blocks(text, "yaml")]


@pytest.mark.parametrize(("page", "block"), YAML, ids=[page for page, _ in YAML])
def test_blocks_of_yaml_are_valid(page: str, block: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(block)
    without_kind = {"kind": "amazon2014", "category": "Baby"}
    sources = {name: keys if "kind" in keys else without_kind | keys for name, keys in raw.get("sources", {}).items()}
    base = {"datasets": [*sources] or ["shop"], "sources": {"shop": {"kind": "sample"}}}
    whole = merge(merge(base, BASES.get(page, {})), raw | {"sources": sources})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(whole))
    assert all(load(tmp_path / "params.yaml", dataset).datasets for dataset in whole["datasets"])
