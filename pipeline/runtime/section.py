"""Sections of the parameters: base class, types of keys, validation and its messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, most_similar, one_line
from alignrec.pipeline.runtime.removals import name_replacement

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_VALUES_SHOWN = 20  # maximum values of a list or mapping shown in a message

MAX_COUNT = (1 << 31) - 1  # of users, items, rows and steps
MAX_SEED = (1 << 63) - 1
MAX_RUNS = 1000  # training runs with other seeds, splits, or settings to try
MAX_THREADS = 1024
MAX_WIDTH = 1 << 20  # numbers of a vector
MAX_CUTOFFS = 100
MAX_LAYERS = 100

Positive = Annotated[int, Field(gt=0, le=MAX_COUNT)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Runs = Annotated[int, Field(gt=0, le=MAX_RUNS)]
Threads = Annotated[int, Field(gt=0, le=MAX_THREADS)]
Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
Layers = Annotated[int, Field(ge=0, le=MAX_LAYERS)]
Seed = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]
Cutoffs = Annotated[list[Positive], Field(max_length=MAX_CUTOFFS)]
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


Address = Annotated[str, AfterValidator(_check_port)]  # URL (http, https, file) or path
# a single item needs no brackets
WRAPPED = BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)


class Section(BaseModel):
    """A section of params.yaml.

    Unknown keys are errors, values are not coerced, instances are immutable.
    """

    # commands need few validators, and to build all takes 0.1 s
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
    speed: ClassVar[frozenset[str]] = frozenset()
    """keys that affect run time but not results"""

    def facts(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(self.speed))

    def resolved(self) -> Section:
        return self


Kind = TypeVar("Kind", bound=Section)


def validate(kind: type[Kind], raw: Any, where: str = "") -> Kind:
    """Validate parsed YAML as a section.

    UserError names the first error, with `where` as the path of the section.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as e:
        raise UserError(first_fault(e, kind, where)) from None


def require_known(names: Iterable[str], among: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is not `among` the known ones, and suggest the nearest."""
    for name in names:
        if name not in among:
            raise UserError(f"'{where}': no '{one_line(name, 64)}'{nearest(name, among)}")


def nearest(name: str, among: Iterable[str]) -> str:
    """Return a hint for an unknown name: what replaced it, the nearest known one, or all."""
    replacement = name_replacement(name)
    if replacement:
        return replacement
    names = list(among)
    if not names:
        return ""
    similar = most_similar(name, names)
    return f"; did you mean '{similar}'?" if similar else f"; valid: {', '.join(names)}"


def first_fault(error: ValidationError, kind: type[Section], where: str = "") -> str:
    """Describe the first error of untrusted values.

    Unknown keys come first, as they may be misspelt required keys.
    """
    faults = error.errors()
    unknown_keys = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    fault = (unknown_keys or faults)[0]
    keys = [where] if where else []
    keys += [str(key) for key in fault["loc"]]
    path = one_line(".".join(keys), 120) or "the file"

    if unknown_keys:
        *place, key = fault["loc"]
        return f"unknown key '{path}'{nearest(str(key), _valid_keys(kind, place))}"
    if fault["type"] == "missing":
        return f"'{path}' is required"
    if fault["type"] == "literal_error" and "[key]" in fault["loc"]:
        return _unknown_key_of_mapping(fault, faults, path)
    problem = re.sub(r" or instance of \w+", "", fault["msg"])  # a class, which is no value here
    message = one_line(problem.lower(), 160)
    return f"'{path}': {message}, found {_describe_value(fault['input'])}"


def _unknown_key_of_mapping(fault: ErrorDetails, faults: Sequence[ErrorDetails], path: str) -> str:
    """Describe a key that a mapping with fixed keys lacks."""
    place = fault["loc"][: fault["loc"].index("[key]")]
    valid: dict[str, None] = {}
    for alternative in faults:
        if alternative["loc"][: len(place)] == place and "ctx" in alternative:
            valid |= dict.fromkeys(re.findall(r"'([^']+)'", alternative["ctx"]["expected"]))
    return f"unknown key '{path.partition('.[key]')[0]}'{nearest(str(place[-1]), valid)}"


def _describe_value(value: Any) -> str:
    if isinstance(value, (dict, list)) and len(value) > MAX_VALUES_SHOWN:
        return f"{type(value).__name__} of {len(value):,}"
    try:
        return one_line(repr(value), 120)
    except ValueError:  # Python limits the digits of integers that are converted
        return "a number of thousands of digits"


def _valid_keys(kind: Any, keys: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at the path `keys` within a section.

    None if it is no section.
    """
    for key in keys:
        if _is_section(kind):
            kind = _annotations(kind).get(str(key))
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        kind = next(filter(_is_section, get_args(kind)), kind)
    return list(_annotations(kind)) if _is_section(kind) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _annotations(section: type[Section]) -> dict[str, Any]:
    fields = section.model_fields.items()
    return {field.alias or name: field.annotation for name, field in fields}


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
