"""A parameter file as one value; alignrec/commands/params.py adds the sections."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny

from alignrec.pipeline.config.base import Kind, Name, Section, nearest
from alignrec.pipeline.errors import UserError, one_line

Shown = Literal["all", "titles", "none"]
"""what a release says of an item besides its identifier and hashes: title, brand, categories, description, text and
image address; title and categories; nothing"""


@dataclass(frozen=True)
class Licence:
    """Licence of data that is made from a source."""

    header: Mapping[str, str]  # keys of the Hub's metadata block
    text: str  # for people
    interactions: bool = False  # whether it lets a release carry the interactions
    synthetic: str = ""  # what of the data was generated rather than collected, in a sentence; empty: nothing
    address: str = ""  # of the licence
    texts: Shown = "all"  # what it lets a release say of an item


OWN = Licence(
    {"license": "unknown"},
    "Made from files that the publisher of this release named; their terms are the publisher's to state.",
)


class Source(Section):
    """A dataset under `sources` of params.yaml. A new kind is a file with a subclass, and an entry in its registry."""

    kind: str
    """a name in pipeline/sources/base.py"""
    licence: ClassVar[Licence] = OWN

    @property
    def has_split(self) -> bool:
        return False

    @abstractmethod
    def reader(self) -> Any:
        """Return what reads its files: a Reader of pipeline/sources/base.py."""


class Parameters(Section):
    """The whole of params.yaml: `params[Graph]` is the section of that class."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """what `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> its kind, a name in pipeline/encode/registry.py, and keys of that kind's class in pipeline/encode/"""

    def __getitem__(self, kind: type[Kind]) -> Kind:
        for name in type(self).model_fields:
            if type(section := getattr(self, name)) is kind:
                return section
        raise KeyError(kind.__name__)

    def section(self, name: str) -> Section:
        section: Section = getattr(self, name)
        return section.resolved()

    def having(self, *sections: Section) -> Self:
        names = {type(getattr(self, name)): name for name in type(self).model_fields}
        return self.model_copy(update={names[type(section)]: section for section in sections})

    def source(self, dataset: str) -> Source:
        if dataset not in self.sources:
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{nearest(dataset, self.sources)}"
            )
        return self.sources[dataset]
