"""Baselines without a network: TF-IDF, classical descriptors; and degenerate encoders."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures
import pytest
import torch
from PIL import Image, ImageDraw
from shop import featured, toy
from shop.featured import params, stage, vectors

from alignrec.pipeline import io
from alignrec.pipeline.encoders.descriptors import (
    DESCRIPTOR_SIDE_PIXELS,
    LEVELS,
    SILHOUETTE_CELLS,
    Descriptors,
    describe_images,
)
from alignrec.pipeline.encoders.tfidf import Tfidf, count_terms, split_terms, weigh_terms
from alignrec.pipeline.io.errors import UserError

TEXTS = ["red red apple", "red ball", "blue car", "blue car of steel", "", "odd"]


def test_weights_are_those_of_the_equation() -> None:
    terms, weights, _ = count_terms(TEXTS)
    actual = weigh_terms(terms, weights, ["red red apple car"]).toarray()[0]
    idf = np.log(7 / 3) + 1  # red, blue and car stand in two of six texts; apple, in one, is no term
    expected = np.array([(1 + np.log(2)) * idf, idf])
    assert len(terms) == 3
    np.testing.assert_allclose(np.sort(actual)[::-1][:2], expected / np.linalg.norm(expected))
    assert weigh_terms(terms, weights, ["", "odd"]).nnz == 0


def test_an_item_without_text_is_zero(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf"))
    actual = vectors(layout, "tfidf")
    assert not actual[4].any()
    assert np.abs(actual[[0, 1]]).max() > 0.1  # red apple, red ball
    table = io.read_features(layout.features("tfidf"))
    assert table["has_text"].to_pylist() == [bool(t) for t in toy.TITLES]
    assert not any(table["has_image"].to_pylist())


SHOPS = {
    "Chinese": ("保温杯 运动鞋 电饭煲 太阳镜", "新款 红色 家用 男士 便携 大容量 防水 儿童"),
    "Japanese": ("スニーカー 炊飯器 イヤホン 水筒", "新型の 赤い 家庭用 メンズ 携帯 大容量 防水 子供向け"),
    "Korean": ("보온병 운동화 전기밥솥 선글라스", "신상품 빨간색 가정용 남성용 휴대용 대용량 방수용 아동용"),
    "Thai": ("กระติกน้ำ รองเท้ากีฬา หม้อหุงข้าว แว่นกันแดด", "รุ่นใหม่ สีแดง ใช้ในบ้าน ผู้ชาย พกพา ความจุสูง กันน้ำ สำหรับเด็ก"),
    "Khmer": ("ដបទឹក ស្បែកជើង ឆ្នាំងបាយ វ៉ែនតា", "ថ្មី ពណ៌ក្រហម សម្រាប់ផ្ទះ បុរស យួរដៃ ធំ ការពារទឹក កុមារ"),
    "Lao": ("ກະຕຸກນ້ຳ ເກີບກິລາ ໝໍ້ຫຸງເຂົ້າ ແວ່ນຕາ", "ໃໝ່ ສີແດງ ໃນເຮືອນ ຜູ້ຊາຍ ພົກພາ ໃຫຍ່ ກັນນ້ຳ ເດັກນ້ອຍ"),
    "Burmese": ("ရေဘူး ဖိနပ် ထမင်းအိုး မျက်မှန်", "အသစ် အနီရောင် အိမ်သုံး အမျိုးသား လက်ကိုင် အကြီး ရေစိုခံ ကလေး"),
    "mixed": ("保温杯 运动鞋 电饭煲 太阳镜", "Nike Sony XL 2024 Sale Premium 300ml 防水"),
}


@pytest.mark.parametrize("language", SHOPS)
def test_a_language_without_spaces_finds_items_of_the_same_type(language: str) -> None:
    types, others = (words.split() for words in SHOPS[language])
    rng = np.random.default_rng(0)
    kind = np.arange(120) % len(types)
    titles = ["".join([*(first := list(rng.choice(others, 2)))[:1], types[k], first[1]]) for k in kind]
    terms, weights, _ = count_terms(titles)
    x = weigh_terms(terms, weights, titles).toarray()
    nearest = np.argsort(-(x @ x.T) + 9 * np.eye(120), axis=1)[:, :5]
    assert (kind[nearest] == kind[:, None]).mean() > 0.7  # chance: 0.25


def test_terms_of_spaced_texts_are_words() -> None:
    for text in (*toy.TITLES, "Naïve Straße-2 для дома", "العربية كتاب", "신상품 블루투스이어폰"):
        assert split_terms(text) == re.findall(r"\w\w+", text.lower())
    assert split_terms("iPhone手机壳 红 Tシャツ") == ["iphone", "手机", "机壳", "红", "シャ", "ャツ"]


# --- classical descriptors


COLOURS, SILHOUETTE = slice(0, LEVELS**3), slice(LEVELS**3, LEVELS**3 + SILHOUETTE_CELLS**2)
GRADIENTS = slice(LEVELS**3 + SILHOUETTE_CELLS**2, Descriptors.width)


def drawn(colour: str, box: tuple[int, int, int, int], background: str = "white") -> np.ndarray:
    image = Image.new("RGB", (DESCRIPTOR_SIDE_PIXELS, DESCRIPTOR_SIDE_PIXELS), background)
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return np.asarray(image)


WIDE, TALL = (8, 36, 87, 59), (36, 8, 59, 87)


def test_each_part_tells_what_the_others_do_not() -> None:
    x = describe_images(np.stack([drawn("red", WIDE), drawn("blue", WIDE), drawn("red", TALL)]))
    same_shape, same_colour = x[0] * x[1], x[0] * x[2]
    assert same_colour[COLOURS].sum() == pytest.approx(1, abs=1e-5)
    assert same_shape[SILHOUETTE].sum() == pytest.approx(1, abs=1e-5)
    assert same_shape[COLOURS].sum() < 0.9
    assert same_colour[SILHOUETTE].sum() < 0.5
    assert same_colour[GRADIENTS].sum() < 0.9
    np.testing.assert_allclose(
        [np.linalg.norm(x[:, part], axis=1) for part in (COLOURS, SILHOUETTE, GRADIENTS)], 1, rtol=1e-5
    )


def test_a_batch_equals_single_images_and_a_plain_one_is_finite() -> None:
    encoder = Descriptors()
    sizes = {"red": (40, 30), "grey": (1, 1), "blue": (300, 900)}
    images = [pictures.noise((60, 50)), *(pictures.plain(colour, size) for colour, size in sizes.items())]
    vectors = encoder.encode(encoder.prepare(images, None)).numpy()
    single = np.concatenate([encoder.encode(encoder.prepare([one], None)).numpy() for one in images])
    assert vectors.shape == (4, encoder.width)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors, single, atol=1e-6)


# --- degenerate encoders: all zeros are an error; one vector for all, or many zeros, a warning


Change = Callable[[torch.Tensor], torch.Tensor]
WARNINGS: dict[str, Change] = {
    "all 5 items with content have the same vector": torch.ones_like,
    "all 5 items with content have the same vector ": lambda x: 1 + 1e-7 * x,  # nearly
    "4 of 5 items with content have a vector of zeros": lambda x: x * torch.eye(len(x), 1),
}


def giving(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Replace the vectors of TF-IDF."""
    encode = Tfidf.encode
    monkeypatch.setattr(Tfidf, "encode", lambda self, prepared: change(encode(self, prepared)))


@pytest.mark.parametrize("said", WARNINGS)
def test_what_distinguishes_few_items_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    giving(monkeypatch, WARNINGS[said])
    layout = toy.outputs(tmp_path)
    given = toy.params(encode={"encoders": ["tfidf"]}, beit3={"sets": []}, combine={"sets": {}, "controls": []})
    featured.stage(layout, given)
    assert io.read_json(layout.run_record("encode", "tfidf"))["notes"]["warnings"] == [f"tfidf: {said.strip()}"]


def test_zeros_for_all_items_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giving(monkeypatch, torch.zeros_like)
    with pytest.raises(UserError, match=r"^tfidf: all 5 items"):
        featured.stage(toy.outputs(tmp_path), featured.params("tfidf"))


def test_an_imported_file_of_zeros_is_an_error_that_names_it(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    layout.raw.mkdir(parents=True, exist_ok=True)
    np.save(layout.raw / "theirs.npy", np.zeros((6, 3)))
    io.write_json(layout.sources, [{"role": "feature:theirs", "name": "theirs.npy"}])
    source = {"kind": "mmrec", "interactions": "x.inter", "features": {"theirs": "theirs.npy"}}
    given = toy.params(sources={"shop": source}, encode={"encoders": []}, beit3={"sets": []}, combine={"controls": []})
    with pytest.raises(UserError, match=r"theirs\.npy: all 6 items"):
        featured.stage(layout, given)
