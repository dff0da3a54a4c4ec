"""What one types at a prompt: it works, or one line says why not."""

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from conftest import CPU, ROOT
from PIL import Image, ImageOps
from torchvision.transforms.functional import resize, to_pil_image

SEVEN = ROOT / "data/pictures/seven.png"


TEXTS = "", "   ", "half an emoji \ud83d", None, ["so good", "very bad"]
TOYS = "continue_text", "judge", "fill_mask"
WRONG = [(name, (text,), {}) for name in TOYS for text in TEXTS]
WRONG += [
    ("continue_text", ("It is",), {"top_p": 90}),
    ("continue_text", ("It is",), {"temperature": 0}),
    ("continue_text", ("It is",), {"max_new_tokens": 9_999}),
    ("fill_mask", ("There is none.",), {}),
    ("fill_mask", ("[MASK] opened the [MASK].",), {}),
    ("nearest", ("A dog.", []), {}),
    ("nearest", ("A dog.", ["A cat.", ""]), {}),
    ("Lesson", ("cpu", False, "Hub"), {}),
    ("Lesson", ("tpu",), {}),
]


@pytest.mark.parametrize("name, given, how", WRONG)
def test_what_makes_no_sense_costs_one_line(lecture, name, given, how):
    with pytest.raises(ValueError) as told:
        getattr(lecture, name)(*given, **how)
    assert len(str(told.value).splitlines()) == 1


def test_a_text_that_is_too_long_is_told_how_long_it_may_be(lecture):
    for name, longest in zip(TOYS, (256 - 30, 128, 128), strict=True):
        with pytest.raises(ValueError, match=rf"\b{longest}\b"):
            getattr(lecture, name)("word " * 900 + "[MASK]")


def test_a_text_goes_on_with_the_likeliest_pieces_or_with_drawn_ones(lecture):
    tokenizer, model = lecture.load_pretrained("GPT-2")
    ids = tokenizer("Elizabeth looked", return_tensors="pt").input_ids
    for _ in range(30):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    greedy = " ".join(tokenizer.decode(ids[0]).split())
    torch.manual_seed(0)
    ways = [{}, {"temperature": 1e-3}, {"top_k": 1}, {"top_p": 1e-6}]
    ways += [
        {"temperature": 2},
        {"top_k": 20.0},
        {"top_p": 0.9},
        {"max_new_tokens": 60},
    ]
    texts = [lecture.continue_text("Elizabeth looked", **how) for how in ways]
    assert set(texts[:4]) == {greedy} and len(set(texts)) == 5
    assert all(text.startswith("Elizabeth looked") for text in texts)
    assert len(texts[-1]) > 1.5 * len(greedy) and texts[-1].startswith(greedy[:-5])


def test_masks_are_filled_opinions_judged_and_the_nearest_text_found(lecture):
    found = lecture.fill_mask("She opened the [MASK] and walked in.")
    assert len(found) == 5 and {"door", "room"} & set(found)
    feeling, sure = lecture.judge("A wonderful day, full of joy.")
    assert feeling == "POSITIVE" and 50 < sure <= 100
    assert lecture.judge("A terrible waste of money.")[0] == "NEGATIVE"
    texts = ["She paid for the bread.", "The engine of the car is broken."]
    assert lecture.nearest("The machine does not work.", texts) == texts[1]


def test_the_run_and_the_prompt_share_one_model_of_each_name(lecture, lesson):
    models = {name: lesson.load(name)[1] for name in lecture.PRETRAINED}
    (
        lecture.fill_mask("It is [MASK]."),
        lecture.judge("It is."),
        lecture.continue_text("It"),
    )
    for name, model in models.items():
        assert lecture.load_pretrained(name)[1] is model and not model.training


@pytest.fixture(scope="module")
def reader(lecture, digits):  # a CNN that has learned to read for three seconds
    cnn, some = lecture.build_cnn(), {"x": digits.x[:12_000], "y": digits.y[:12_000]}
    torch.manual_seed(0)
    lecture.fit(lecture.Lesson(CPU), cnn, digits._replace(**some), 80, 0.008)
    return cnn


def test_the_device_is_one_that_can_hold_a_number(lecture, monkeypatch):
    for module in (torch.cuda, torch.mps):
        monkeypatch.setattr(module, "is_available", lambda: True)
    memory = Mock(side_effect=RuntimeError("out of memory"))
    monkeypatch.setattr(torch, "ones", memory)
    assert lecture.pick_device() == CPU
    with pytest.raises(ValueError, match="cuda.*cpu"):
        lecture.pick_device("cuda")


def painted(seven):  # by a scanner, on a blackboard, in a lamp's light ...
    ink = ImageOps.invert(seven)
    yield seven
    yield ink  # white on black
    yield seven.convert("I").point(lambda grey: grey * 257).convert("I;16")
    yield Image.merge("LA", (Image.new("L", seven.size), ink))  # transparent
    yield seven.crop(ink.point(lambda grey: 255 * (grey > 99)).getbbox())  # no rim
    shadow = Image.linear_gradient("L").resize(seven.size).point(lambda v: 110 + v // 2)
    yield Image.composite(shadow, Image.new("L", seven.size), seven)


def test_a_seven_is_a_seven_however_it_is_painted(lecture, reader, tmp_path):
    for picture in painted(Image.open(SEVEN).convert("L")):
        picture.save(tmp_path / "seven.png")
        for file in (picture, tmp_path / "seven.png", str(tmp_path / "seven.png")):
            digit, sure = lecture.read_digit(reader, file)
            assert digit == 7 and 20 < sure <= 100
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held so: turn it to the right
    lying = Image.open(SEVEN).convert("RGB").rotate(90, expand=True)
    lying.save(tmp_path / "seven.jpg", exif=exif)
    assert lecture.read_digit(reader, tmp_path / "seven.jpg")[0] == 7


def test_mnists_digits_are_read_and_placed_as_mnists(lecture, reader, digits):
    right = 0
    for x, y in zip(digits.x_test[:15], digits.y_test[:15].tolist(), strict=True):
        ink = F.pad(resize(x * 0.3081 + 0.1307, [90, 90]), (10, 70, 5, 40)).clamp(0, 1)
        picture = to_pil_image(0.9 - 0.8 * ink)
        right += lecture.read_digit(reader, picture)[0] == y
        found = (lecture.prepare_digit(picture)[0, 0] * 0.3081 + 0.1307).clamp(0)
        assert 18 <= max((found > 0.1).any(n).sum() for n in (1, 0)) <= 22
        centre = [found.sum(n) @ torch.arange(28.0) / found.sum() for n in (1, 0)]
        assert all(12.5 < place < 15.5 for place in centre)
    assert right >= 14


def test_what_is_not_one_digit_is_told_so(lecture, reader, tmp_path):
    seven = Image.open(SEVEN).convert("L")
    four = Image.new("L", (4 * seven.width, seven.height), "white")
    for n in range(4):
        four.paste(seven, (n * seven.width, 0))
    blank, full = Image.new("L", (90, 90), "white"), Image.new("L", (90, 90), "white")
    full.paste("black", (2, 2, 88, 88))  # DEFECT in the script: it reads a 2
    for picture in (four, blank, full):
        with pytest.raises(ValueError, match="digit"):
            lecture.read_digit(reader, picture)
    (tmp_path / "digit.png").write_text("not a picture")
    for name in ("digit.png", "missing.png"):
        with pytest.raises(OSError, match=name):
            lecture.read_digit(reader, tmp_path / name)
