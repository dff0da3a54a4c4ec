"""What one types at a prompt: it works, or one line says why not."""

import pytest
import torch
from conftest import CPU, ROOT
from PIL import Image, ImageDraw, ImageOps

SEVEN = ROOT / "data/pictures/seven.png"
TEXTS = "", "   ", "half an emoji \ud83d", None, ["so good", "very bad"]
TOYS = "continue_text", "judge", "fill_mask"
WRONG = [(name, (text,), {}) for name in TOYS for text in TEXTS]
HOWS = {"top_p": 90}, {"temperature": 0}, {"max_new_tokens": 9_999}
WRONG += [("continue_text", ("It is",), how) for how in HOWS]
WRONG += [
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
    torch.manual_seed(0)
    ways = [{}, {"temperature": 1e-3}, {"top_k": 1}, {"top_p": 1e-6}]
    ways += [{"temperature": 2}, {"top_k": 20.0}, {"top_p": 0.9}]
    ways += [{"max_new_tokens": 60}]
    greedy, *texts = (lecture.continue_text("Elizabeth looked", **how) for how in ways)
    assert texts[:3] == 3 * [greedy] and len({greedy, *texts}) == 5
    assert all(text.startswith("Elizabeth looked") for text in texts)
    assert len(texts[-1]) > 1.5 * len(greedy) and texts[-1].startswith(greedy[:-5])


def test_the_run_and_the_prompt_share_one_model_of_each_name(lecture, lesson):
    models = {name: lesson.load(name)[1] for name in lecture.SMALL}
    lecture.fill_mask("It is [MASK].")
    lecture.continue_text("It")
    lecture.judge("It is.")
    for name, model in models.items():
        assert lecture.load_pretrained(name)[1] is model and not model.training


def test_a_texts_vector_does_not_depend_on_its_company(lecture):
    bert, text = lecture.load_pretrained("BERT"), "A dog ran."
    alone = lecture.features(bert, [text])[2]
    beside = lecture.features(bert, [text, "A longer text, so there is padding."])[2]
    torch.testing.assert_close(alone[0], beside[0], atol=1e-4, rtol=1e-4)
    songs = ["We went swimming.", "He plays the guitar in a band."]
    assert lecture.nearest("She sings songs.", songs) == songs[1]


def test_shuffled_words_are_the_same_in_another_order(lecture):
    text = "one two three four five six seven eight nine ten."
    mixed = lecture.shuffle_words(text)
    assert mixed != text and sorted(mixed[:-1].split()) == sorted(text[:-1].split())


@pytest.fixture(scope="module")
def reader(lecture, digits):  # a CNN that has learned to read for three seconds
    cnn, some = lecture.build_cnn(), {"x": digits.x[:12_000], "y": digits.y[:12_000]}
    torch.manual_seed(0)
    batches = lecture.shuffled(digits._replace(**some))
    lecture.train(lecture.Lesson(CPU), cnn, batches, steps=80, rate=0.008)
    return cnn


def test_the_device_is_one_that_can_hold_a_number(lecture, monkeypatch):
    def ones(*_, device):  # a graphics card is there, but its memory is full
        return torch.zeros(1 if device == "cpu" else 2**62)

    monkeypatch.setattr(torch, "ones", ones)
    assert lecture.pick_device() == CPU
    with pytest.raises(ValueError, match="cuda"):
        lecture.pick_device("cuda")


def test_a_seven_is_a_seven_however_it_is_painted(lecture, reader, tmp_path):
    seven = Image.open(SEVEN).convert("L")
    ink = ImageOps.invert(seven)
    scan = seven.convert("I").point(lambda grey: grey * 257).convert("I;16")
    clear = Image.merge("LA", (Image.new("L", seven.size), ink))  # black, transparent
    cropped = seven.crop(ink.point(lambda grey: 255 * (grey > 99)).getbbox())
    shadow = Image.linear_gradient("L").resize(seven.size).point(lambda v: 110 + v // 2)
    dark = Image.composite(shadow, Image.new("L", seven.size), seven)
    for picture in (seven, ink, scan, clear, cropped, dark):
        picture.save(tmp_path / "7.png")
        for file in (picture, tmp_path / "7.png", str(tmp_path / "7.png")):
            digit, sure = lecture.read_digit(reader, file)
            assert digit == 7 and 20 < sure <= 100
    rows = lecture.prepare_digit(seven)[0, 0].amax(1) > 0  # [28], as high as MNIST's
    assert 19 <= rows.sum() <= 21
    board = Image.new("L", (100, 100))  # black, with a thick 1 in chalk
    ImageDraw.Draw(board).line((50, 15, 50, 85), 255, 12)
    assert lecture.read_digit(reader, board)[0] == 1
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held so: turn it to the right
    seven.rotate(90, expand=True).save(tmp_path / "7.jpg", exif=exif)
    photo = lecture.prepare_digit(Image.open(tmp_path / "7.jpg"))
    assert (photo - lecture.prepare_digit(seven)).abs().mean() < 0.1


def test_what_is_not_one_digit_is_told_so(lecture, reader, tmp_path):
    seven, white = Image.open(SEVEN).convert("L"), Image.new("L", (90, 90), "white")
    four = Image.new("L", (4 * seven.width, seven.height), "white")
    for n in range(4):
        four.paste(seven, (n * seven.width, 0))
    full = ImageOps.expand(Image.new("L", (86, 86)), 2, "white")
    for picture in (four, white, full, Image.effect_noise((90, 90), 200)):
        with pytest.raises(ValueError, match="digit"):
            lecture.read_digit(reader, picture)
    (tmp_path / "digit.png").write_text("not a picture")
    for name in ("digit.png", "missing.png"):
        with pytest.raises(OSError, match=name):
            lecture.read_digit(reader, tmp_path / name)
