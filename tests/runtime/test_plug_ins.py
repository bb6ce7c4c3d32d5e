"""A part of another package that fails at import, or has another shape, is one line with its name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import alignrec

from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime import registry
from alignrec.pipeline.sources.base import SOURCES
from alignrec.pipeline.vectors.base import READERS

REGISTRIES = (MODELS, ENCODERS, SOURCES, PROBES, READERS)
FAILING = {
    "raise ValueError('of its own')": "of its own",
    "1 / 0": "division by zero",
    "assert False": "AssertionError",
    "def": "invalid syntax",
    "import nowhere_to_be_found": "No module named 'nowhere_to_be_found'",
    "raise SystemExit(3)": "3",
    "raise RuntimeError('two\\nlines')": "two lines",
    "def f(): f()\nf()": "maximum recursion depth",
    "PARTS = 1": "has no attribute 'PART'",
    "def __getattr__(name): raise KeyError(name)": "'PART'",
}
SETTINGS = "from alignrec.pipeline.runtime.section import Section\n"
SPEC = f"from alignrec.pipeline.encoders.registry import Spec\n{SETTINGS}"
BPR = "from alignrec.pipeline.models.bpr import BPR\n"
SHAPES = {
    "models": {
        "PART = 7": "no subclass of Recommender",
        "class PART: pass": "no subclass of Recommender",
        "from alignrec.pipeline.models.base import Recommender as PART": "Recommender without forward, loss",
        f"{BPR}class PART(BPR): Params = dict": "Params is no subclass of Train",
    },
    "encoders": {
        "PART = {}": "no Spec",
        f"{SPEC}PART = Spec(7, Section)": "its `load` is no function",
        f"{SPEC}PART = Spec(print, dict)": "its `params` is no subclass of Section",
        f"{SPEC}PART = Spec(print, Section, reads=('sound',))": "its `reads` are not image, text or both",
        f"{SPEC}PART = Spec(print, Section, reads=7)": "'int' object is not iterable",
    },
    "sources": {
        "PART = None": "no subclass of Source",
        f"{SETTINGS}class PART(Section): pass": "no subclass of Source",
        "from alignrec.pipeline.runtime.source import Source as PART": "Source without reader",
    },
    "probes": {"PART = []": "no Probe", "def PART(): pass": "no Probe"},
    "readers": {"PART = 'x'": "no function"},
}
BY_KIND = {entry.kind: entry for entry in REGISTRIES}
CASES = [(entry.kind, *case) for entry in REGISTRIES for case in FAILING.items()]
CASES += [(kind, *case) for kind, cases in SHAPES.items() for case in cases.items()]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(registry, "installed_parts", lambda group: {"mine": "hostile_part:PART"})
    yield tmp_path
    sys.modules.pop("hostile_part", None)


@pytest.mark.parametrize(("kind", "code", "fault"), CASES)
def test_a_part_that_cannot_be_used_is_named(site: Path, kind: str, code: str, fault: str) -> None:
    (site / "hostile_part.py").write_text(code)
    start = f"entry point 'mine = hostile_part:PART' of alignrec.{kind}: "
    for ask in (BY_KIND[kind].__getitem__, BY_KIND[kind].source_files):
        with pytest.raises(UserError) as refused:
            ask("mine")
        message = str(refused.value)
        assert message.startswith(start)
        assert fault in message
        assert message.endswith("; correct its package")
        assert "\n" not in message


def test_a_command_says_it_in_one_line(site: Path) -> None:
    (site / "hostile_part.py").write_text("raise ValueError('of its own')")
    encode = "encoders: {mine: {}}\nencode: {encoders: [mine]}\nbeit3: {sets: []}"
    parts = {
        "sources: {shop: {kind: mine}}": "sources",
        f"sources: {{shop: {{kind: sample}}}}\n{encode}": "encoders",
        "sources: {shop: {kind: sample}}\nbenchmark: {models: [mine]}": "models",
    }
    for text, kind in parts.items():
        (site / "params.yaml").write_text(f"datasets: [shop]\n{text}\n")
        result = alignrec("plan", "shop", cwd=site)
        assert isinstance(result.exception, SystemExit)
        assert result.output.count("\n") == 1
        assert f"'mine = hostile_part:PART' of alignrec.{kind}: of its own; correct its package" in result.output
