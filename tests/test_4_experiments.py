"""The experiments: what they train on and test on, and that each claim fails where it is false."""

import re
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from conftest import passed
from torch import nn
from transformers import BertConfig, BertForPreTraining

LETTERS = (55, 63, 100, 71, 83, 100, 75, 93, 100, 77, 97.7, 100)  # linear, MLP, MLP on its own rows
DEPTH, UNTRAINED = (88, 96, 98, 99), (87, 94, 95, 85)  # pixels, block 1, block 2, dense layer
SHIFTED = (99, 98, 94, 80, 60), (97, 95, 85, 60, 40)  # by 0, 1, 2, 3, 4 pixels
WORLDS = [  # a part, what it finds to be read in %, in order, which rows then fail; the losses
    ("show_letters", LETTERS, []), ("show_letters", (*LETTERS[:10], 96.9, 97), ["2.2"]),
    ("show_letters", LETTERS, ["1.4"], 3.7), ("show_letters", LETTERS, ["1.4"], 3.26, 0.4),
    ("show_letters", (*LETTERS[:9], 83, 97.7, 99), ["2.2"]),
    ("show_letters", (55, 63, 70, *LETTERS[3:]), ["1.6"]),
    ("show_letters", (*LETTERS[:11], 104), ["1.6"]),
    ("show_digits", (92, 97, 99.3), []), ("show_digits", (92, 97, 99.1), ["3.6"]),
    ("show_digits", (92, 99.4, 99.3), ["6.1"]), ("show_digits", (98, 97, 99.3), ["6.1"]),
    ("show_translation", SHIFTED[0] + SHIFTED[1], []),
    ("show_translation", (99, 98, 92, *SHIFTED[0][3:], *SHIFTED[1]), ["3.7"]),
    ("show_depth", DEPTH + UNTRAINED, []), ("show_depth", UNTRAINED + UNTRAINED, ["1.5"]),
    ("show_depth", (88, 98, 96, 99, *UNTRAINED), ["1.5"]), ("show_depth", 2 * DEPTH, ["1.5"]),
    ("show_structure", (98.8, 94, 96), []), ("show_structure", (98.8, 97, 98), ["2.4"]),
    ("show_structure", (96, 90, 95), ["2.4"]), ("show_structure", (98.8, 94, 93), ["2.4"]),
    ("show_skip", (96, 20), []), ("show_skip", (85, 4), ["3.9"]), ("show_skip", (96, 70), ["3.9"]),
    ("show_memory", (13, 100, 100, 100), ["4.4"]),  # its gate has not been trained
    *(("show_memory", right, ["4.4"] * 2) for right in (
        (45, 100, 100, 100), (13, 80, 100, 100), (13, 100, 100, 80))),
    ("show_head", (90, 90), []), ("show_head", (66, 66), ["2.5"]),
]


@pytest.fixture(autouse=True)
def few(lecture, lesson, digits, readers, swap):  # 600 digits, 300 to test, models that read
    data = lecture.Data(digits.x[:600], digits.y[:600], digits.x_test[:300], digits.y_test[:300])
    swap("load_mnist", lambda *_: data)
    lesson.models |= {"CNN": readers[0], "MLP": readers[1], "untrained CNN": lecture.build_cnn()}
    return data


@pytest.fixture
def world(swap):  # in which trainings and tests end as is told; it keeps what they are given
    def make(right, first=3.26, last=0.01):
        def fit(lesson, name, model, data, *_, **__):
            kept.data.append(data)
            percent = next(answers) if right else 0.0
            lesson.keep(name, model, "", seconds=1.0, percent=percent, losses=[first, *[last] * 99])
            return percent

        def features(_, texts):
            kept.texts.append(texts)
            return 0, 0, dict.fromkeys(("[CLS]", "mean", "static"), torch.zeros(len(texts), 4))

        def train(lesson, name, model, steps, rate, batch):
            kept.batches.append([batch(step) for step in range(steps)])
            return [1.0] * steps, 0.5

        answers, kept = iter(map(float, right)), Mock(data=[], texts=[], batches=[])
        for function in (fit, features, train):
            swap(function.__name__, function)
        if right:
            swap("accuracy", lambda *_: next(answers))
        return kept
    return make


@pytest.mark.parametrize("case", WORLDS)
def test_a_claim_holds_in_the_lectures_world_and_fails_in_another(lecture, lesson, world, case):
    part, right, failed, *losses = case
    world(right, *losses)
    getattr(lecture, part)(lesson)
    if part == "show_digits":  # which fills the last table
        lecture.show_table(lesson)
    assert [claim["row"] for claim in lesson.claims if not claim["passed"]] == failed


def test_a_head_learns_from_other_paragraphs_than_those_of_its_test(lecture, lesson, world):
    kept = world((90, 90))
    lecture.show_head(lesson)
    speech = {text.replace('"', ""): int(text.startswith('"'))
              for part in lecture.load_novel() for text in part.split("\n")}
    for texts, y in zip(kept.texts, (kept.data[0].y, kept.data[0].y_test), strict=True):
        assert [speech[text] for text in texts] == y.tolist() and len(texts) > 200
    assert len(set(kept.texts[0]) & set(kept.texts[1])) <= 2


def test_maps_move_with_a_digit_and_pooling_forgives(lecture, lesson, readers):
    cnn, dense = readers[0], nn.Sequential(nn.Flatten(), nn.Linear(784, 9_216))
    dense.append(nn.Unflatten(1, (16, 24, 24)))
    unpooled = nn.Sequential(*cnn[:2], nn.Identity(), nn.AvgPool2d(2), *cnn[3:])
    for wrong in (cnn, nn.Sequential(dense, *cnn[1:]), unpooled):
        lesson.models["CNN"] = wrong
        lecture.show_translation(lesson)
    assert passed(lesson, "3.4")[:3] == [True, True, False] and not passed(lesson, "3.4")[5]


def test_training_and_test_rows_are_treated_alike(lecture, lesson, few, world):
    given = world(DEPTH + UNTRAINED).data
    lecture.show_depth(lesson)
    assert [data.x[0].numel() for data in given] == 2 * [784, 16 * 12 * 12, 64 * 4 * 4, 128]
    for data in given:
        assert data.x.mean().item() == pytest.approx(0, abs=1e-3) == data.x.std().item() - 1
    pixels = few.x.flatten()  # test rows by the training rows' mean, not by their own
    torch.testing.assert_close(given[0].x_test, (few.x_test - pixels.mean()) / pixels.std())
    given = world((98.8, 94, 96)).data
    lecture.show_structure(lesson)
    as_is, shuffled, by_mlp = given
    assert torch.equal(as_is.x, few.x) and not torch.equal(shuffled.x, few.x)
    assert torch.equal(shuffled.x, by_mlp.x) and torch.equal(as_is.x_test, few.x_test)
    before, after = (torch.cat([data.x, data.x_test]).flatten(1).std(0) for data in (few, shuffled))
    torch.testing.assert_close(after.sort().values, before.sort().values)  # the same columns


def test_other_networks_than_the_lectures_are_noticed(lecture, lesson, world, swap):
    larger, build = nn.Sequential(nn.Conv2d(1, 16, 7), *lecture.build_cnn()[1:]), lecture.build_mlp
    world((50,) * 4)
    for name, other in (("build_cnn", lambda: larger), ("Skip", nn.Sequential),
                        ("milliseconds", lambda *_: 5.0),
                        ("build_mlp", lambda *_, **__: build(16, 256, 255, 26))):  # with an f
        swap(name, other)
    for part in ("convolution", "skip", "recurrence", "layers"):
        getattr(lecture, f"show_{part}")(lesson)
    for row in ("3.10", "4.6", "2.1", "2.2"):
        assert passed(lesson, row) == [False]
    assert passed(lesson, "3.9") == [False, False]


def test_lstms_learn_first_symbols_and_next_seen_characters(lecture, lesson, world, swap):
    kept, (seen, unseen) = world(()), lecture.load_novel()
    swap("count_tables", lambda *_: [9.0] * 6)
    lecture.show_memory(lesson)
    lecture.show_writing(lesson)
    assert passed(lesson, "4.4") == [False, False] and passed(lesson, "4.5") == [False]
    for batches in kept.batches:
        lengths = [x.shape[1] for x, _ in batches]
        assert lengths == sorted(lengths) and {lengths[0], lengths[-1]} == {2, 100}
        assert all(torch.equal(y, x[:, 0]) for x, y in batches)
    (x, y, x_test, y_test), = kept.data
    for ids, following, text in ((x[::1_000], y[::1_000], seen), (x_test, y_test, unseen)):
        assert torch.equal(ids[:, 1:], following[:, :-1])
        assert all(bytes(row).decode() in text for row in ids.tolist() + following.tolist())
    # untrained, they guess: 12.5 %, and in bits log2(128 characters)
    assert all(8 < lesson.scores[f"{name}, recall"]["percent"] < 20 for name in ("RNN", "LSTM"))
    assert lesson.scores["LSTM, novel"]["bits"] == pytest.approx(7, abs=0.1)
    swap("predict", lambda _, x: 9.0 * F.one_hot(x, 128).mT)
    lecture.show_writing(lesson)
    assert lesson.scores["LSTM, novel"]["bits"] > 8  # who repeats what it sees predicts nothing


def test_both_sides_find_more_than_one_and_a_blank_bert_knows_nothing(lecture, lesson, swap):
    (seen, unseen), (tokenizer, _) = lecture.load_novel(), lecture.load_pretrained("BERT")
    blank = BertForPreTraining(BertConfig(  # its states are static vectors, and positions
        vocab_size=len(tokenizer), hidden_size=96, num_hidden_layers=0, num_attention_heads=4))
    for load in (lesson.load, lambda _: (tokenizer, blank.eval().requires_grad_(False))):
        lesson.load = load
        swap("load_novel", lambda: (seen, unseen[:12_000]))
        lecture.show_both_sides(lesson)
        lecture.show_meaning(lesson)
    texts = ["A dog.", "The old man saw a small dog near his house in the rain."]
    together, alone = (lecture.features(lecture.load_pretrained("BERT"), part)[2]["mean"][0]
                       for part in (texts, texts[:1]))
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)  # padding is left out
    hidden, found = map(int, re.findall(r"\d+", lesson.claims[0]["sentence"])[:2])
    assert found < 0.7 * hidden and passed(lesson, "5.8") == [True, False]
    assert passed(lesson, "5.9") == [True, True, False, False]


def test_a_classifier_must_not_say_the_opposite_nor_guess(lecture, lesson, swap):
    lecture.show_sentiment(lesson)
    for said in (["NEGATIVE"] * 20 + ["POSITIVE"] * 20, ["POSITIVE", "NEGATIVE"] * 20):
        swap("judge", Mock(side_effect=[(feeling, 90.0) for feeling in said]))
        lecture.show_sentiment(lesson)
    assert passed(lesson, "5.10") == [True, False, False]
