"""Parameters: base class and types of sections, their error messages, the parameter file, and YAML parsing."""

from __future__ import annotations

import difflib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
)

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def _check_port(address: str) -> str:
    try:
        urlsplit(address).port  # noqa: B018  # the property validates the port
    except ValueError as e:
        raise ValueError(f"not a valid address: {e}") from None
    return address


Address = Annotated[str, AfterValidator(_check_port)]  # URL or path
WRAPPED = BeforeValidator(
    lambda raw: [raw] if isinstance(raw, str) else raw
)  # a single item needs no brackets
# addresses of one file, tried in order: URLs (http, https, file) or paths; a single one needs no list
Mirrors = Annotated[list[Address], Field(min_length=1), WRAPPED]


class Section(BaseModel):
    """A section of params.yaml. Unknown keys are errors, values are not coerced, instances are immutable."""

    # commands need few validators, and to build all takes 0.1 s
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
    speed: ClassVar[frozenset[str]] = frozenset()
    """keys that affect run time but not results"""

    def facts(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(self.speed))

    def resolved(self) -> Section:
        return self


LONGEST_NAME = 64  # characters of a name that are compared with known names
MOST_SHOWN = 20  # maximum values of a list or mapping shown in a message

Kind = TypeVar("Kind", bound=Section)


def checked(kind: type[Kind], raw: Any, where: str = "") -> Kind:
    """Validate parsed YAML as a section; UserError names the first error, with `where` as the path of the section."""
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise UserError(first_fault(e, kind, where)) from None


def known(names: Iterable[str], among: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is not `among` the known ones, and suggest the nearest."""
    for name in names:
        if name not in among:
            raise UserError(f"'{where}': no '{one_line(name, 64)}'{nearest(name, among)}")


def nearest(name: str, among: Iterable[str]) -> str:
    among = list(among)
    similar = difflib.get_close_matches(name[:LONGEST_NAME], among, n=1, cutoff=0.6)
    return (
        f"; did you mean '{similar[0]}'?"
        if similar
        else f"; valid: {', '.join(among)}"
        if among
        else ""
    )


def first_fault(error: ValidationError, kind: type[Section], where: str = "") -> str:
    """Describe the first error of untrusted values; unknown keys come first, as they may be misspelt required keys."""
    faults = error.errors()
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    path = (
        one_line(".".join([where] * bool(where) + [str(part) for part in fault["loc"]]), 120)
        or "the file"
    )
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{path}'{nearest(str(fault['loc'][-1]), _valid_keys(kind, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"'{path}' is required"
    if (
        fault["type"] == "literal_error" and "[key]" in fault["loc"]
    ):  # the key of a mapping with fixed keys
        place = fault["loc"][: fault["loc"].index("[key]")]
        expected = [
            one["ctx"]["expected"]
            for one in faults
            if one["loc"][: len(place)] == place and "ctx" in one
        ]
        valid = dict.fromkeys(re.findall(r"'([^']+)'", " ".join(expected)))
        return f"unknown key '{path.partition('.[key]')[0]}'{nearest(str(place[-1]), valid)}"
    value = fault["input"]
    if isinstance(value, (dict, list)) and len(value) > MOST_SHOWN:
        found = f"{type(value).__name__} of {len(value):,}"
    else:
        try:
            found = one_line(repr(value), 120)
        except ValueError:  # Python limits the digits of integers that are converted
            found = "a number of thousands of digits"
    return f"'{path}': {one_line(fault['msg'].lower(), 160)}, found {found}"


def _valid_keys(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    # follow the path of the error through nested sections
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = {
                field.alias or name: field.annotation for name, field in kind.model_fields.items()
            }.get(str(part))
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        kind = next(
            (one for one in get_args(kind) if isinstance(one, type) and issubclass(one, Section)),
            kind,
        )
    if not (isinstance(kind, type) and issubclass(kind, Section)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


# item fields in a release besides identifier and hashes: title, brand, categories, description, text and image address;
# title and categories; none
Shown = Literal["all", "titles", "none"]


@dataclass(frozen=True)
class Licence:
    """Licence of data derived from a source."""

    header: Mapping[str, str]  # keys of the Hub's metadata block
    text: str  # human-readable terms
    interactions: bool = False  # whether a release may contain the interactions
    synthetic: str = ""  # sentence that says which data are synthetic; empty if none are
    address: str = ""  # URL of the licence
    texts: Shown = "all"  # item fields that a release may contain


OWN = Licence(
    {"license": "unknown"},
    "Made from files that the publisher of this release named; their terms are the publisher's to state.",
)


class Source(Section):
    """A dataset under `sources` of params.yaml, and base class of all kinds of source.

    A kind overrides `reader` and is registered in pipeline/sources/base.py. `licence` applies to data derived from it;
    `has_split` is whether its interactions come with a split; `has_images` whether its items can have
    images, false if only the download shows that.
    """

    kind: str
    """a name in pipeline/sources/base.py"""
    licence: ClassVar[Licence] = OWN

    @property
    def has_split(self) -> bool:
        return False

    @property
    def has_images(self) -> bool:
        return True

    @abstractmethod
    def reader(self) -> Any:
        """Return the reader of its raw files, a `Reader` of pipeline/sources/base.py."""


class Parameters(Section):
    """The whole of params.yaml; `params[Graph]` is the section of class Graph."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    """datasets that `dvc repro` builds; each is declared under `sources`"""
    sources: dict[Name, SerializeAsAny[Source]]
    encoders: dict[Name, dict[str, Any]] = {}
    """name -> `kind`, a name in pipeline/encoders/registry.py, and parameters of that kind's class"""

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
            similar = nearest(dataset, self.sources)
            raise UserError(
                f"no dataset '{one_line(dataset, 64)}' under sources in the parameters{similar}"
            )
        return self.sources[dataset]


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


LARGEST = (
    1 << 17
)  # maximum bytes of a file, parsed in a few seconds; typical files have a few thousand
EXTENDS = "extends"
# exceptions of PyYAML, including those of tags such as !!int
FAULTS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


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
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d{1,3}$"),
    [*"-+.0123456789"],
)


def read_yaml(path: Path) -> Any:
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise UserError(f"{path}: not a parameter file but a folder, pipe or device")
    try:
        # one byte more than allowed, to detect larger files
        with path.open("rb") as f:
            data = f.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        return yaml.load(data.decode("utf-8-sig"), Loader)  # Loader derives from SafeLoader
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
        raise UserError(
            f"{path}: '{EXTENDS}': give the path of a parameter file, from the folder of this one"
        )
    base = read_yaml(path.parent / over[EXTENDS])
    if not isinstance(base, dict) or EXTENDS in base:
        raise UserError(
            f"{path}: '{EXTENDS}': {over[EXTENDS]} must be a whole parameter file, which extends none"
        )
    return merge(base, over)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge sections by key and replace everything else."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = {**base[key], **value} if both else value
    merged.pop(EXTENDS, None)
    return merged
