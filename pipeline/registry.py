"""Parts that go by a name, loaded when they are asked for: recommenders, encoders, sources, probes.

An entry is a name and `module:attribute`. Ours stand in the registry of their package. Another package adds its own as
entry points of the group `alignrec.<kind>`, in its pyproject.toml:

    [project.entry-points."alignrec.models"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from pipeline.errors import UserError

Part = TypeVar("Part")
OURS = "pipeline."


class Registry(Mapping[str, Part]):
    """Name -> part, ours first; only names are known until one is asked for."""

    def __init__(self, kind: str, ours: Mapping[str, str]) -> None:
        """Take our entries; `kind` is the plural that the group of entry points is called after."""
        self.kind, self.ours = kind, ours

    @property
    def entries(self) -> dict[str, str]:
        """Name -> `module:attribute`.

        Raises:
            UserError: another package calls its part as we call one of ours.
        """
        others = installed(f"alignrec.{self.kind}")
        if twice := sorted(others.keys() & self.ours.keys()):
            raise UserError(f"entry point '{twice[0]}' of alignrec.{self.kind}: the name is taken; choose another")
        return {**self.ours, **others}

    def __getitem__(self, name: str) -> Part:
        """Import the part.

        Raises:
            KeyError: no part has this name. UserError: another package's part cannot be imported.
        """
        path = self.entries[name]
        module, _, attribute = path.partition(":")
        try:
            return cast(Part, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as e:
            if path.startswith(OURS):
                raise
            raise UserError(f"entry point '{name} = {path}' of alignrec.{self.kind}: {e}; mend its package") from e

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def module(self, name: str) -> str:
        """Return the full name of the module that holds a part."""
        return self.entries[name].partition(":")[0]

    def foreign(self, name: str) -> list[Path]:
        """Return the source file of another package's part, to be hashed with a stage's inputs; of ours nothing.

        Ours is part of the stage's own code, whose fingerprint the stage's key has anyway.
        """
        spec = None if self.entries[name].startswith(OURS) else importlib.util.find_spec(self.module(name))
        return [Path(spec.origin)] if spec and spec.origin else []


@cache
def installed(group: str) -> dict[str, str]:
    """Return the entry points of a group: name -> `module:attribute`, sorted."""
    return {found.name: found.value for found in sorted(entry_points(group=group), key=lambda found: found.name)}
