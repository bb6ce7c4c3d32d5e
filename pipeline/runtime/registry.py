"""Registries of recommenders, encoders, sources and probes.

Other packages register theirs in pyproject.toml:

[project.entry-points."alignrec.models"]
mine = "my_package.mine:Mine"
"""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from alignrec.pipeline.io.errors import UserError

Part = TypeVar("Part")
BUILT_IN = "alignrec.pipeline."


@dataclass(eq=False, frozen=True)
class Registry(Mapping[str, Part]):
    """Mapping from name to part, built-in parts first.

    Parts are imported when they are looked up.
    """

    kind: str
    built_in: Mapping[str, str]

    @property
    def entries(self) -> dict[str, str]:
        others = installed_parts(f"alignrec.{self.kind}")
        # the meaning of a built-in name must not depend on installed packages
        if twice := sorted(others.keys() & self.built_in.keys()):
            entry_point = f"entry point '{twice[0]}' of alignrec.{self.kind}"
            raise UserError(f"{entry_point}: the name is taken; choose another")
        return {**self.built_in, **others}

    def __getitem__(self, name: str) -> Part:
        """Import the part.

        KeyError if the name is unknown, UserError if a part of another package fails to import.
        """
        path = self.entries[name]
        module, _, attribute = path.partition(":")
        try:
            return cast(Part, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as e:
            if path.startswith(BUILT_IN):
                raise
            raise UserError(
                f"entry point '{name} = {path}' of alignrec.{self.kind}: {e}; correct its package"
            ) from e

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def module(self, name: str) -> str:
        return self.entries[name].partition(":")[0]

    def source_files(self, name: str) -> list[Path]:
        # the code fingerprint covers built-in parts only
        spec = (
            None
            if self.entries[name].startswith(BUILT_IN)
            else importlib.util.find_spec(self.module(name))
        )
        return [Path(spec.origin)] if spec and spec.origin else []


@cache
def installed_parts(group: str) -> dict[str, str]:
    return {
        point.name: point.value
        for point in sorted(entry_points(group=group), key=lambda point: point.name)
    }
