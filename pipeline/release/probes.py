"""Schema of probes.json. It is closed and bounded, as files of releases are untrusted and rendered as pages."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

LARGEST = 64 << 20  # bytes
Text = Annotated[str, Field(max_length=500)]
Reason = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Measured = dict[Text, Number]  # measure -> figure


class Skipped(BaseModel, extra="forbid", strict=True):
    """Reason why a probe, or one feature set of it, was skipped."""

    skipped: Reason


def _check_comparable(asked: dict[str, Any]) -> dict[str, Any]:
    sets = {name: of for name, of in asked.items() if isinstance(of, dict)}
    if not isinstance(asked.get("skipped", ""), str) or not isinstance(asked.get("note", ""), str):
        raise ValueError("'skipped' and 'note' are texts")
    if "skipped" in asked:
        return asked
    measures = {name for name in sets.get("chance", {}) if not name.endswith("_se")}
    if not measures:
        raise ValueError("no figures of chance")
    if lacking := [name for name, of in sets.items() if not measures <= of.keys()]:
        raise ValueError(f"{one_line(lacking[0], 64)} lacks figures that chance has")
    return asked


# results of one probe: number of cases, a note, and the figures of chance and of each feature set
Asked = Annotated[
    dict[Text, Count | Reason | Skipped | Measured], AfterValidator(_check_comparable)
]


class Test(BaseModel, extra="forbid", strict=True):
    """A paired test of two sets in one probe."""

    __test__ = False
    difference: Number
    low: Number
    high: Number
    p_holm: Number


class Verdict(BaseModel, extra="forbid", strict=True):
    """Verdict on which of two sets is better."""

    probe: Text
    measure: Text
    a: Text
    b: Text
    raw: Test | None = None
    processed: Test | None = None
    verdict: Literal["better", "worse", "undecided"]


class Form(BaseModel, extra="allow", strict=True):
    """The form chosen for a feature set, and the figure of each form."""

    __pydantic_extra__: dict[str, Number]
    form: Text


class Processed(BaseModel, extra="allow", strict=True):
    """Results on processed vectors, by probe."""

    __pydantic_extra__: dict[str, Asked]
    width: Count
    chosen_by: Text = ""
    forms: dict[Text, Form] = {}


class Probes(BaseModel, extra="allow", strict=True):
    """The content of probes.json: results by probe, and verdicts."""

    __pydantic_extra__: dict[str, Asked]
    processed: Processed | None = None
    verdicts: list[Verdict] = []
    learned: list[Text] = []

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if lacking := [
            row.probe for row in self.verdicts if row.probe not in self.__pydantic_extra__
        ]:
            raise ValueError(f"a verdict of '{one_line(lacking[0], 64)}', which has no figures")
        return self


def read_probes(path: Path) -> dict[str, Any]:
    """Read an untrusted probes.json; UserError names the first fault."""
    raw = io.read_json(path, LARGEST)
    if isinstance(raw, dict):
        raw.pop("tried", None)  # written by older releases
    try:
        Probes.model_validate(raw)
    except ValidationError as e:
        fault = e.errors(include_input=False, include_url=False)[0]
        where = one_line(".".join(map(str, fault["loc"])) or "the file", 120)
        raise UserError(
            f"{path}: '{where}': {one_line(fault['msg'].lower(), 160)}; fetch the release again"
        ) from None
    return dict(raw)
