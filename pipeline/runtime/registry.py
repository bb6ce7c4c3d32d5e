"""Registries of recommenders, encoders, sources and probes.

Other packages register theirs in pyproject.toml:

[project.entry-points."alignrec.models"]
mine = "my_package.mine:Mine"
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar, cast

from alignrec.pipeline.io.errors import UserError, one_line

Part = TypeVar("Part")
BUILT_IN = "alignrec.pipeline."


@dataclass(eq=False, frozen=True)
class Registry(Mapping[str, Part]):
    """Mapping from name to part, built-in parts first.

    Parts are imported when they are looked up.
    """

    kind: str
    built_in: Mapping[str, str]
    fault_of: Callable[[object], str]  # what is wrong with a part of another package, or ""

    @property
    def entries(self) -> dict[str, str]:
        others = installed_parts(f"alignrec.{self.kind}")
        # the meaning of a built-in name must not depend on installed packages
        if twice := sorted(others.keys() & self.built_in.keys()):
            raise UserError(
                f"entry point '{twice[0]}' of alignrec.{self.kind}: the name is taken; "
                "choose another"
            )
        return {**self.built_in, **others}

    def __getitem__(self, name: str) -> Part:
        """Import the part.

        KeyError if the name is unknown, UserError if a part of another package fails to import or
        has another shape.
        """
        path = self.entries[name]
        if path.startswith(BUILT_IN):
            return cast(Part, _import_part(path))

        try:
            part = _import_part(path)
            fault = self.fault_of(part)
        except (Exception, SystemExit) as e:  # any code may run at import
            raise self._refusal(name, str(e) or type(e).__name__) from e
        if fault:
            raise self._refusal(name, fault)
        return cast(Part, part)

    def _refusal(self, name: str, fault: str) -> UserError:
        return UserError(
            f"entry point '{name} = {self.entries[name]}' of alignrec.{self.kind}: "
            f"{one_line(fault)}; correct its package"
        )

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
        if self.entries[name].startswith(BUILT_IN):
            return []
        self[name]  # raises UserError if it cannot be imported
        spec = importlib.util.find_spec(self.module(name))
        return [Path(spec.origin)] if spec and spec.origin else []


def _import_part(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def fault_of_class(part: object, base: type | str, settings: str = "") -> str:
    """Return why a part is no concrete subclass of `base`; "" if it is.

    `base`: a class, or its path `module:Class` if it must not be imported earlier.
    `settings`: attribute that must be a subclass of the same attribute of `base`.
    """
    if isinstance(base, str):
        base = cast(type, _import_part(base))
    if not isinstance(part, type) or not issubclass(part, base):
        return f"no subclass of {base.__name__}"
    if lacking := sorted(getattr(part, "__abstractmethods__", ())):
        return f"{base.__name__} without {', '.join(lacking)}"
    if settings:
        given = getattr(part, settings)
        expected = getattr(base, settings)
        if not isinstance(given, type) or not issubclass(given, expected):
            return f"{settings} is no subclass of {expected.__name__}"
    return ""


def fault_of_function(part: object) -> str:
    return "" if callable(part) else "no function"


@cache
def installed_parts(group: str) -> dict[str, str]:
    return {
        point.name: point.value
        for point in sorted(entry_points(group=group), key=lambda point: point.name)
    }
