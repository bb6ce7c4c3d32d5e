"""Schema of probes.json, closed and bounded: files of releases are untrusted and rendered."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

MAX_PROBES_BYTES = 64 << 20  # of probes.json
Text = Annotated[str, Field(max_length=500)]
Reason = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Measured = dict[Text, Number]  # measure -> figure


def _check_comparable(results: dict[str, Any]) -> dict[str, Any]:
    texts = (results.get("skipped", ""), results.get("note", ""))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("'skipped' and 'note' are texts")
    if "skipped" in results:
        return results

    sets = {name: figures for name, figures in results.items() if isinstance(figures, dict)}
    measures = {name for name in sets.get("chance", {}) if not name.endswith("_se")}
    if not measures:
        raise ValueError("no figures of chance")
    for name, figures in sets.items():
        if not measures <= figures.keys():
            raise ValueError(f"{one_line(name, 64)} lacks figures that chance has")
    return results


# results of one probe: number of cases, a note, and the figures of chance and of each feature set
ProbeResults = Annotated[dict[Text, Count | Reason | Measured], AfterValidator(_check_comparable)]


class StoredTest(BaseModel, extra="forbid", strict=True):
    """A paired test of two sets in one probe."""

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
    raw: StoredTest | None = None
    processed: StoredTest | None = None
    verdict: Literal["better", "worse", "undecided"]


class Form(BaseModel, extra="allow", strict=True):
    """The form chosen for a feature set, and the figure of each form."""

    __pydantic_extra__: dict[str, Number]
    form: Text


class Processed(BaseModel, extra="allow", strict=True):
    """Results on processed vectors, by probe."""

    __pydantic_extra__: dict[str, ProbeResults]
    width: Count
    chosen_by: Text = ""
    forms: dict[Text, Form] = {}


class Probes(BaseModel, extra="allow", strict=True):
    """The content of probes.json: results by probe, and verdicts."""

    __pydantic_extra__: dict[str, ProbeResults]
    processed: Processed | None = None
    verdicts: list[Verdict] = []
    learned: list[Text] = []

    @model_validator(mode="after")
    def _answered(self) -> Self:
        for verdict in self.verdicts:
            if verdict.probe not in self.__pydantic_extra__:
                probe = one_line(verdict.probe, 64)
                raise ValueError(f"a verdict of '{probe}', which has no figures")
        return self


def read_probes(path: Path) -> dict[str, Any]:
    """Read an untrusted probes.json; UserError names the first fault."""
    raw = io.read_json(path, MAX_PROBES_BYTES)
    try:
        Probes.model_validate(raw)
    except ValidationError as e:
        fault = e.errors(include_input=False, include_url=False)[0]
        where = one_line(".".join(map(str, fault["loc"])) or "the file", 120)
        reason = one_line(fault["msg"].lower(), 160)
        raise UserError(f"{path}: '{where}': {reason}; fetch the release again") from None
    return dict(raw)
