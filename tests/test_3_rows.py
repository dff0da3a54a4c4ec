"""Rows computed by hand: they hold, and fail for another model; what one types at a prompt."""

import math
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from conftest import passed
from PIL import Image
from torch import nn
from torchvision.transforms.functional import resize, to_pil_image

BY_HAND = {
    "show_neurons": ["1.1"], "show_backpropagation": ["1.2"], "show_optimizers": ["1.3"],
    "show_outputs": ["2.3"], "show_layers": ["2.1", "2.2"],
    "show_convolution": ["3.1", "3.2", "3.3", "3.5", "3.10"],
    "show_recurrence": ["4.1", "4.2", "4.5", "4.6"], "show_gradients": ["4.3"] * 3,
    "show_attention": ["5.1", "5.11", "5.12"], "show_block": ["5.2", "5.7"],
    "show_order": ["5.3"], "show_sight": ["5.13", "5.4"] * 2,
}


@pytest.mark.parametrize("part", BY_HAND)
def test_what_is_computed_by_hand_holds_from_any_start(lecture, lesson, part):
    for seed in (1, 2):
        torch.manual_seed(seed)
        getattr(lecture, part)(lesson)
    assert [claim["row"] for claim in lesson.claims] == 2 * BY_HAND[part]
    assert all(claim["passed"] is True for claim in lesson.claims)


def test_the_parts_of_networks_do_what_pytorchs_do(lecture):
    kinds = [type(layer) for layer in lecture.build_mlp(16, 8, 6, 4)]
    assert kinds == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    q, k, v = torch.randn(5, 8), torch.randn(9, 8), torch.randn(9, 3)
    torch.testing.assert_close(lecture.attention(q, k, v)[2], (k @ q[2] / 8**0.5).softmax(0) @ v)
    model, x = lecture.OneAttention(8, 9), torch.tensor([[1, 2, 3], [2, 1, 3]])  # places matter
    assert not torch.allclose(*model(x), atol=1e-5)
    parts = model.qkv(model.embedding(x) + model.position.weight[:3]).chunk(3, dim=-1)
    causal = model.output(lecture.attention(*parts, causal=True))  # its last place answers
    torch.testing.assert_close(model(x), causal[:, -1])
    image = torch.randn(3, 12, 10)
    assert torch.equal(lecture.slide(image, 5, 3, torch.max), F.max_pool2d(image, 5, 3).amax(0))
    image = torch.arange(12.0).view(1, 3, 4) - 2  # background comes in, nothing comes round
    assert lecture.shifted(image, 1).tolist() == [[[-2, -2, -1, 0], [-2, 2, 3, 4], [-2, 6, 7, 8]]]


def test_count_tables_give_what_counting_by_hand_gives(lecture):
    # a, a, b: p(b) = (1 + 2 / 2) / (3 + 2); after a came a, b: p(b | a) = (1 + 2 x 2/5) / (2 + 2)
    bits, bits_1 = lecture.count_tables("aab", "ab", 1)
    assert bits == pytest.approx(-math.log2(0.4)) and bits_1 == pytest.approx(-math.log2(0.45))
    # the text is a ring: after its last b comes a, p(a | b) = (1 + 1 x 3/5) / (1 + 1)
    assert lecture.count_tables("aab", "ba", 1)[1] == pytest.approx(-math.log2(0.8))
    assert lecture.count_tables("abcabd" * 50, "abcabd" * 5, 5)[-1] < 0.1


def give(lecture, lesson, name, **changes):  # a stand-in, whatever the lesson asks for
    tokenizer, model = lecture.load_pretrained(name)
    lesson.load = lambda _: (tokenizer, Mock(parameters=list, **changes))
    return tokenizer, model


def test_bert_is_no_triangle_and_gpt2_no_square(lecture, lesson):
    lesson.load = lambda name: lecture.load_pretrained("GPT-2" if name == "BERT" else "BERT")
    lecture.show_sight(lesson)
    assert passed(lesson, "5.13") == passed(lesson, "5.4") == [False, False]


def test_the_loss_is_shifted_by_one_and_counted_in_bits(lecture, lesson, monkeypatch):
    def call(ids, labels=None, logits_to_keep=0):  # sure of the token that it sees, not the next
        logits = sure * F.one_hot(ids, size)
        return Mock(logits=logits[:, -logits_to_keep:], loss=F.cross_entropy(logits.mT, ids))

    seen, unseen = lecture.load_novel()
    monkeypatch.setattr(lecture, "load_novel", lambda: (seen, unseen[:4_000]))
    tokenizer, model = give(lecture, lesson, "GPT-2", side_effect=call)
    size = model.config.vocab_size
    for sure in (9.0, 0.0):  # noqa: B007
        lecture.show_prediction(lesson)
    assert passed(lesson, "5.5")[0] is False and passed(lesson, "5.5")[2] is True
    bits, tokens = math.log2(size), len(tokenizer(unseen[:4_000]).input_ids)
    assert f"{bits:.2f}" in lesson.claims[-1]["sentence"]
    assert lesson.scores["GPT-2, novel"]["bits"] == pytest.approx(bits * tokens / 4_000, rel=0.03)


def test_other_tokens_than_the_likeliest_are_noticed_and_so_is_a_look_ahead(lecture, lesson):
    def call(*ids, **how):  # what comes later changes what comes before
        out = model(*ids, **how)
        out.logits += 0.01 * (ids[0].shape[1] if ids else 0)
        return out

    tokenizer, model = lecture.load_pretrained("GPT-2")
    parts = {"transformer": model.transformer, "config": model.config, "device": model.device}
    give(lecture, lesson, "GPT-2", side_effect=call, **parts,
         generate=lambda **how: model.generate(**how).roll(1))
    lecture.show_block(lesson)
    lecture.show_generation(lesson)
    assert passed(lesson, "5.2") == [True] and passed(lesson, "5.6") == [False]
    assert passed(lesson, "5.7") == [False]


def test_a_text_goes_on_with_the_likeliest_tokens_or_with_drawn_ones(lecture, lesson):
    tokenizer, model = lecture.load_pretrained("GPT-2")
    ids = tokenizer("Elizabeth looked", return_tensors="pt").input_ids
    for _ in range(30):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    texts = [lecture.continue_text("Elizabeth looked", **choice) for choice in (
        {}, {"temperature": 1e-3}, {"temperature": 0.8}, {"top_k": 20}, {"top_p": 0.9})]
    assert texts[0] == texts[1] == " ".join(tokenizer.decode(ids[0]).split())
    assert len(set(texts)) == 4 and all(text.startswith("Elizabeth looked") for text in texts)
    assert " last, and" in lecture.continue_text("first " * 300 + "at last, and")  # 256 places


def test_a_mask_is_filled_with_five_words_and_a_sentence_judged(lecture):
    found = lecture.fill_mask("She opened the [MASK] and walked in.")
    assert len(found) == 5 and {"door", "room"} & set(found) and sum(found.values()) > 5
    assert list(found.values()) == sorted(found.values(), reverse=True)
    with pytest.raises(ValueError, match=r"\[MASK\]"):
        lecture.fill_mask("[MASK] opened the [MASK].")
    for text, feeling in (("A wonderful day.", "POSITIVE"), ("A terrible waste.", "NEGATIVE")):
        assert lecture.judge(text)[0] == feeling and 50 < lecture.judge(text)[1] <= 100


@pytest.mark.parametrize("paint", ["dark on light", "light on dark", "transparent"])
def test_a_digit_is_read_from_a_picture_as_from_mnist(lecture, readers, digits, tmp_path, paint):
    right, inputs, file = 0, [], tmp_path / "digit.png"
    with readers[0].register_forward_pre_hook(lambda _, x: inputs.append(x[0])):
        for x, y in zip(digits.x_test[:30], digits.y_test[:30].tolist(), strict=True):
            ink = F.pad(resize(x * 0.3081 + 0.1307, [90, 90]), (10, 70, 5, 40)).clamp(0, 1)
            clear = torch.cat([torch.zeros(3, *ink.shape[1:]), ink])
            to_pil_image({"dark on light": 0.95 - 0.9 * ink, "light on dark": 0.1 + 0.8 * ink,
                          "transparent": clear}[paint]).save(file)
            right += lecture.read_digit(readers[0], file) == y
    assert right >= 27 and len(inputs) == 30
    for x in inputs:  # 20 pixels high or wide, in the middle of 28
        ink = (x[0, 0] * 0.3081 + 0.1307).clamp(0)
        centre = [(ink.sum(n) @ torch.arange(28.0) / ink.sum()).item() for n in (0, 1)]
        assert centre == pytest.approx([14, 14], abs=0.6)
        assert 18 <= max((ink > 0.05).any(n).sum() for n in (0, 1)) <= 20 and ink.max() > 0.9
    thin = Image.new("L", (400, 400), "white")
    thin.paste("black", (200, 50, 204, 350))
    (exif := Image.Exif())[0x112] = 6  # turn it, as a telephone's camera asks for
    for picture, one in ((thin, True), (thin.rotate(90), False)):
        picture.save(file)
        assert (lecture.read_digit(readers[0], file) == 1) is one
        picture.save(file.with_suffix(".jpg"), exif=exif)
        assert (lecture.read_digit(readers[0], file.with_suffix(".jpg")) == 1) is not one
    Image.new("RGB", (50, 40), "white").save(file)
    with pytest.raises(ValueError, match="digit.png"):
        lecture.read_digit(readers[0], file)
