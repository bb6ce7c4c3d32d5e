"""The feature sets of one dataset, each as a node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from pipeline.encode.base import Context
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.features import imported
from pipeline.features.control import Control
from pipeline.features.encoded import Encoded
from pipeline.features.imported import Import, Imported
from pipeline.features.mapped import Mapped
from pipeline.features.node import Node
from pipeline.features.registry import FEATURES, Encoders, defined, home, kind, ordered, parts, settings
from pipeline.layout import Layout


@dataclass(frozen=True)
class FeatureSets:
    """Name -> node, of all sets that the parameters name and their parts."""

    layout: Layout
    params: Encode
    encoders: Encoders  # section `encoders`
    imports: Mapping[str, Import] = field(default_factory=dict)  # sets that come with the source

    @classmethod
    def of(cls, layout: Layout, params: Encode, encoders: Encoders) -> Self:
        return cls(layout, params, encoders, imported.imports(layout.sources, params.encoders))

    @cached_property
    def names(self) -> list[str]:
        """All sets that are written: encoded, imported, controls. UserError if two have one name."""
        names = [*self.params.encoders, *self.imports, *self.params.controls]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise UserError(f"encode: two feature sets are called '{twice}'; rename the imported one or list it once")
        return names

    def parts(self, name: str) -> list[str]:
        if name not in self.params.encoders:
            if name in self.imports:
                return list(filter(None, [self.imports[name].before]))
            if name in self.params.controls:
                return [*self.params.encoders, *self.imports][:1]
        return parts(self.encoders, name)

    @property
    def order(self) -> list[str]:
        return [name for name in ordered(self.names, self.parts) if name in self.names]

    def __getitem__(self, name: str) -> Node:
        """Return a set, with its network fetched and checked; or UserError."""
        names = self.parts(name)
        for part in names:
            if not defined(self.encoders, part) and part not in self.imports:
                which = f"{self.layout.dataset} has no feature set '{part}'"
                raise UserError(f"'encoders.{name}.of': {which}; import it or name another")
        of = tuple(self[part] for part in names)
        given: dict[str, Any] = {"name": name, "layout": self.layout, "params": self.params, "of": of}
        if name not in self.params.encoders and name in self.imports:
            return Imported(**given, kind="imported", file=self.imports[name].file)
        if name not in self.params.encoders and name in self.params.controls:
            return Control(**given, kind="control")
        which, own = kind(self.encoders, name), settings(self.encoders, name)
        given |= {"kind": which, "own": own, "listed": name in self.params.encoders}
        given["sources"] = tuple(home(which).source_files(which))
        if which in FEATURES:
            return FEATURES[which](**given)
        entry = ENCODERS[which]
        origin = entry.origin(f"encoders.{name}", own) if entry.origin else None
        context = Context(self.layout, self.params, name, origin)
        return Encoded(**given, entry=entry, module=ENCODERS.module(which), context=context)

    def relearned(self, name: str, cold: np.ndarray) -> np.ndarray:
        """Return the vectors of a set of kind `mapped`, fitted without the interactions of items `cold`, int [C]."""
        node = self[name]
        assert isinstance(node, Mapped)
        return node.relearned(cold)
