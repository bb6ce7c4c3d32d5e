"""Read untrusted YAML parameter files and JSON documents with size limits."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ConfigDict, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.harness.config import Section, first_fault
from alignrec.pipeline.io.errors import UserError, one_line

LARGEST = 1 << 17  # bytes of a file, which PyYAML parses in a few seconds; typical files have a few thousand
EXTENDS = "extends"
# exceptions of PyYAML, including those of tags such as !!int
FAULTS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Part(Section):
    """Part of a release's JSON files."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def read(cls, path: Path, max_bytes: int) -> Self:
        """Read an untrusted file; UserError names the first invalid key."""
        try:
            return cls.model_validate(io.read_json(path, max_bytes))
        except ValidationError as e:
            raise UserError(f"{path}: {first_fault(e, cls)}; {io.made_by(path)}") from None


class Loader(yaml.SafeLoader):
    """YAML 1.1 loader that reads 1e-3 as a number, as YAML 1.2 and DVC do, and rejects repeated keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            fault = "an alias; write the value again in its place"
            raise yaml.composer.ComposerError(None, None, fault, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, n in names.items():
            if n > 1:
                fault = f"key '{one_line(name, 64)}' stands here twice"
                raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d{1,3}$"), [*"-+.0123456789"]
)


def read_yaml(path: Path) -> Any:
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise UserError(f"{path}: not a parameter file but a folder, pipe or device")
    try:
        # one byte more than allowed, to detect larger files without reading them
        with path.open("rb") as f:
            data = f.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        return yaml.load(data.decode("utf-8-sig"), Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such parameter file; run from the project's root, pass --params, or begin one with "
            "`alignrec new NAME --interactions FILE`"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not YAML that can be read: nested too deeply") from None
    except FAULTS as e:
        raise UserError(f"{path}: not YAML: {one_line(e)}") from None


def read_extended(path: Path) -> Any:
    """Read a YAML file, merged over the file named by its key `extends`."""
    over = read_yaml(path)
    if not isinstance(over, dict) or EXTENDS not in over:
        return over
    if not isinstance(over[EXTENDS], str):
        raise UserError(f"{path}: '{EXTENDS}': give the path of a parameter file, from the folder of this one")
    base = read_yaml(path.parent / over[EXTENDS])
    if not isinstance(base, dict) or EXTENDS in base:
        raise UserError(f"{path}: '{EXTENDS}': {over[EXTENDS]} must be a whole parameter file, which extends none")
    return merge(base, over)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge sections by key and replace everything else."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = {**base[key], **value} if both else value
    merged.pop(EXTENDS, None)
    return merged
