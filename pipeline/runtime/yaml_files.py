"""Parameter files: YAML, where one file may extend another."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from alignrec.pipeline.io.errors import UserError, one_line

MAX_FILE_BYTES = 1 << 17  # parsed in a few seconds; typical files have a few thousand
EXTENDS = "extends"
VERSIONS = (None, (1, 1), (1, 2))  # of YAML, by a directive
FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d{1,3}$")
# exceptions of PyYAML, including those of tags such as !!int
FAULTS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class Loader(yaml.SafeLoader):
    """YAML 1.1 loader that rejects repeated keys and aliases.

    It reads 1e-3 as a number, as YAML 1.2 and DVC do.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            fault = "an alias; write the value again in its place"
            raise yaml.composer.ComposerError(None, None, fault, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def process_directives(self) -> Any:
        directives = super().process_directives()
        if self.yaml_version not in VERSIONS:
            major, minor = self.yaml_version
            fault = f"%YAML {major}.{minor}: write 1.2, or leave it out"
            raise yaml.parser.ParserError(None, None, fault, self.peek_token().start_mark)
        return directives

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, n in names.items():
            if n > 1:
                fault = f"key '{one_line(name, 64)}' stands here twice"
                raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, [*"-+.0123456789"])


def read_yaml(path: Path) -> Any:
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise UserError(f"{path}: not a parameter file but a folder, pipe or device")
    try:
        # one byte more than allowed, to detect larger files
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES:,} bytes")
        return yaml.load(data.decode("utf-8-sig"), Loader)  # Loader derives from SafeLoader
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such parameter file; run from the project's root, pass --params, "
            "or begin one with `alignrec new NAME --interactions FILE`"
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
    return merge(read_base(path, find_base(path, over)), over)


def find_base(path: Path, over: dict[str, Any]) -> Path:
    """Return the file that a parameter file names under `extends`."""
    name = over[EXTENDS]
    if not isinstance(name, str):
        raise UserError(
            f"{path}: '{EXTENDS}': give the path of a parameter file, from the folder of this one"
        )
    return path.parent / name


def read_base(path: Path, base_path: Path) -> dict[str, Any]:
    """Read the file that the parameter file `path` extends."""
    base = read_yaml(base_path)
    if not isinstance(base, dict) or EXTENDS in base:
        raise UserError(
            f"{path}: '{EXTENDS}': {base_path} must be a whole parameter file, which extends none"
        )
    return base


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge sections by key and replace everything else."""
    merged = dict(base)
    for name, value in over.items():
        is_section = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = {**base[name], **value} if is_section else value
    merged.pop(EXTENDS, None)
    return merged
