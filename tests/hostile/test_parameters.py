"""Parameter files and profiles of any content: refused in one line by every command that reads them."""

from pathlib import Path

import pytest
from commands import alignrec

BASE = "datasets: [shop]\nsources: {shop: {kind: sample, users: 40, items: 30}}\n"
FILES = {"base": BASE, "empty": "", "list": "[1]", "newer": f"%YAML 1.3\n---\n{BASE}", "tag": "!!int x"}
OVER = {
    "benchmark: [1]": "'benchmark': input should be a valid dictionary",
    "benchmark: 7": "'benchmark': input should be a valid dictionary",
    "benchmark: null": "'benchmark': input should be a valid dictionary",
    "benchmark: {ablations: [x]}": "'benchmark.ablations': input should be a valid dictionary",
    "benchmark: {ablations: null}": "'benchmark.ablations': input should be a valid dictionary",
    "benchmark: {ablations: {x: 7}}": "'benchmark.ablations.x': input should be a valid dictionary",
    "benchmark: {ablations: {x: {features: 7}}}": "'benchmark.ablations.x.features': no '7'",
    "benchmark: {ablations: {x: {features: [a]}}}": "'benchmark.ablations.x.features': no '['a']'",
    "benchmark: {features: 7}": "'benchmark.features': input should be a valid list",
    "benchmark: {features: null}": "'benchmark.features': input should be a valid list",
    "benchmark: {features: [[x]]}": "'benchmark.features.0': input should be a valid string",
    "benchmark: {features: [{a: 1}]}": "'benchmark.features.0': input should be a valid string",
    "combine: {sets: {x: {kind: 7}}}": "'combine.sets.x.kind': no '7'; valid: concat",
    "combine: {sets: {x: {kind: [a]}}}": "'combine.sets.x.kind': no '['a']'; valid: concat",
    "combine: {sets: {x: {kind: null}}}": "'combine.sets.x.kind': no 'None'; valid: concat",
    "sources: {shop: {kind: 7}}": "'sources.shop.kind': no '7'",
    "7: 7": "'7': keys should be strings",
}
WHOLE = {
    "": "",
    "null": "",
    "7": "",
    "[]": "",
    "extends: [x]": "'extends': give the path of a parameter file",
    "extends: 7": "'extends': give the path of a parameter file",
    "extends: null": "'extends': give the path of a parameter file",
    "extends: empty.yaml": "empty.yaml must be a whole parameter file",
    "extends: list.yaml": "list.yaml must be a whole parameter file",
    "extends: tag.yaml": "tag.yaml: not YAML",
    "extends: newer.yaml\ntrain: {epochs: 2}": "newer.yaml: not YAML: %YAML 1.3: write 1.2",
    "%YAML 1.3\n---\nextends: base.yaml": "x.yaml: not YAML: %YAML 1.3: write 1.2",
}
FORMS = WHOLE | {f"extends: base.yaml\n{text}": fault for text, fault in OVER.items()}


@pytest.mark.parametrize("command", ["profile x.yaml --to out.yaml", "plan shop --params x.yaml"])
@pytest.mark.parametrize("text", FORMS)
def test_a_file_of_another_shape_is_one_line(tmp_path: Path, text: str, command: str) -> None:
    for name, content in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    (tmp_path / "x.yaml").write_text(text)
    result = alignrec(*command.split(), cwd=tmp_path)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert FORMS[text] in result.output
    assert not (tmp_path / "out.yaml").exists()
