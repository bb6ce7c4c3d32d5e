"""Settings that cannot work together end the first stage and `alignrec plan`, which say what to write."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import alignrec

from alignrec.commands.params import load
from alignrec.pipeline.io.errors import UserError
from alignrec.stages.checks import check_settings

SAMPLE: dict[str, Any] = {"datasets": ["shop"], "sources": {"shop": {"kind": "sample"}}}
WITHOUT_BEIT3: dict[str, Any] = SAMPLE | {"encode": {"encoders": ["tfidf"]}, "beit3": {"sets": []}}
FILES = {"kind": "tabular", "interactions": "ratings.csv", "items": "items.csv"}
MASK = {"mask": {"ratios": [0.5]}}


def write(folder: Path, sections: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.mark.parametrize("command", [("download", "shop"), ("plan",)])
def test_the_first_stage_and_plan_refuse_them_in_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    write(tmp_path, SAMPLE | {"encode": {"encoders": ["tfidf"]}})
    done = alignrec(*command, cwd=tmp_path)
    assert done.exit_code == 1
    assert done.output == (
        "error: params.yaml: 'encode.encoders': pretrain.size mini reads images by cnn and "
        "descriptors; write encode: {encoders: [tfidf, cnn, descriptors]}, or, without BEiT3, "
        "beit3: {sets: []}\n"
    )
    assert not (tmp_path / "outputs/download/shop").exists()


RAW = {"beit3": {"sets": ["beit3-raw", "beit3-image-masked"]}, "train": {"features": "beit3-raw"}}
NOT_MASKED = "'study.mask': no feature set of shop is also made with each modality masked; "
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        SAMPLE | {"study": MASK} | RAW,
        f"{NOT_MASKED}add beit3-raw-image-masked and beit3-raw-text-masked to beit3.sets, or leave study.mask out",
    ),
    (
        SAMPLE | {"study": MASK, "beit3": {"sets": ["beit3", "beit3-image-masked"]}},
        f"{NOT_MASKED}add beit3-text-masked to beit3.sets",
    ),
    (
        WITHOUT_BEIT3 | {"study": MASK, "train": {"features": "tfidf"}},
        f"{NOT_MASKED}add tfidf-image-masked and tfidf-text-masked to combine.sets",
    ),
    (
        SAMPLE | {"study": {"tail": True}, "benchmark": {"models": ["bpr"]}},
        "'study.tail': it compares alignrec on beit3 with other models; add alignrec to "
        "benchmark.models and beit3 to benchmark.features",
    ),
    (
        SAMPLE | {"pretrain": {"distill_from": ["clip"]}},
        "'pretrain.distill_from': no 'clip'; valid: minilm, cnn, descriptors, tfidf",
    ),
    (
        WITHOUT_BEIT3 | {"encode": {"encoders": []}},
        "'combine.sets.linear': no encoder to build on; write encode: {encoders: [tfidf]}, or leave "
        "linear out of combine.sets",
    ),
    (
        SAMPLE | {"beit3": {"sets": ["beit3"]}, "combine": {"sets": {"beit3-image-masked": {}}}},
        "'combine.sets.beit3-image-masked': each number of beit3 depends on image and text, so it is "
        "masked where it is encoded; list beit3-image-masked or beit3-text-masked in beit3.sets",
    ),
    (
        SAMPLE | {"publish": {"users": "none", "interactions": True}},
        "publish.users is none, but interactions are released; set it to numbers or names",
    ),
]


@pytest.mark.parametrize(("sections", "said"), REFUSED)
def test_each_is_named_with_what_to_write(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as e:
        load(write(tmp_path, sections), "shop")
    assert said in str(e.value)
    assert "\n" not in str(e.value)


# --- image tokens of size mini


@pytest.mark.parametrize("header", ["item,title", "item,title,image_urls"])
def test_a_catalogue_of_texts_needs_no_encoder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("items.csv").write_text(f"{header}\n")
    texts = {"datasets": ["shop"], "sources": {"shop": FILES}, "encode": {"encoders": ["tfidf"]}}
    if "image_urls" not in header:
        load(write(tmp_path, texts), "shop")
        with pytest.raises(UserError, match="reads images by cnn and descriptors"):
            load(write(tmp_path, texts | {"images": {"pattern": "images/{item}.jpg"}}), "shop")
        return
    with pytest.raises(UserError, match="reads images by cnn and descriptors"):
        load(write(tmp_path, texts), "shop")
    for other in (
        {"beit3": {"sets": []}},
        {"pretrain": {"size": "small"}},
        {"encode": {"encoders": ["cnn", "descriptors"]}},
    ):
        load(write(tmp_path, texts | other), "shop")


def test_each_dataset_is_checked_and_another_one_is_not(tmp_path: Path) -> None:
    split = {"kind": "mmrec", "interactions": "toy.inter"}  # without items, so nothing is encoded
    sources = {"shop": {"kind": "sample"}, "split": split}
    path = write(tmp_path, SAMPLE | {"sources": sources, "encode": {"encoders": ["tfidf"]}})
    load(path, "split")
    with pytest.raises(UserError, match=re.escape("'encode.encoders'")):
        load(path)


def test_mask_modality_needs_items(tmp_path: Path) -> None:
    split = {"kind": "mmrec", "interactions": "toy.inter"}
    params = load(write(tmp_path, SAMPLE | {"sources": {"shop": split}}), "shop")
    check_settings(params, "shop")
    with pytest.raises(UserError, match=r"with each modality masked; leave study\.mask out"):
        load(write(tmp_path, SAMPLE | {"sources": {"shop": split}, "study": MASK}), "shop")
