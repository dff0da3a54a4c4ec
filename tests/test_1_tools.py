"""The two verbs that judge, the training loop, the evaluation, and what prints."""

import io
import math
import sys
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from conftest import passed
from torch import nn, tensor

INF, NAN = math.inf, math.nan
TEXT = "Of 10,000 digits it reads ▁▂▃▄▅▆▇█ " * 9 + "✓\n\n" + "✗ it moves " * 30


@pytest.mark.parametrize("ours, theirs, holds", [
    (1.0, 1.00005, True), (1.0, 1.001, False), (1e6, 1e6 + 50, True), (1e6, 1e6 + 500, False),
    (0.0, 0.001, False), (torch.arange(3.0), tensor([0.0, 1.0, 2.01]), False),
    (torch.ones(3), torch.ones(3, 1), False), (torch.ones(3), torch.ones(1), False),
    ([1.0], [1.0, 2.0], False), ([1.0, 2.0], [1.0], False), ([], [], False),
    ([1.0, 2.0], [1.0, 2.1], False), (7_234_560, 7_234_560, True),
    (7_234_561, 7_234_560, False), ([26, 14], [26, 14], True),
    ([26, 1_000_001], [26, 1_000_000], False), ([tensor(16), 16], [16, 16], True),
    (tensor([[4, 90_000]]), tensor([[3, 90_000]]), False),  # below: no number equals nothing
    (NAN, 1.0, False), (1.0, NAN, False), (NAN, NAN, False), (INF, 1.0, False), (1.0, INF, False),
    (INF, INF, False), (-INF, -INF, False), (tensor([1.0, INF]), tensor([1.0, INF]), False),
])
def test_the_same_is_equal_to_rounding_and_for_whole_numbers_exactly(lesson, ours, theirs, holds):
    lesson.same("0.0", "a claim", ours, theirs)
    assert passed(lesson, "0.0") == [holds]


def test_a_claim_is_a_sentence_with_its_row_and_quick_leaves_some_out(lecture, lesson, capsys):
    lesson.shows("3.6", "It reads 98.00 %", True, full=True)
    lesson.shows("3.7", "It reads 12.00 %", tensor(3.0) > 4)
    good, bad = capsys.readouterr().out.splitlines()
    assert good == "✓ It reads 98.00 %. (3.6)"
    assert bad.startswith("✗ NOT SHOWN") and bad.endswith("It reads 12.00 %. (3.7)")
    assert lesson.claims[0] == {"row": "3.6", "sentence": "It reads 98.00 %", "passed": True}
    quick = lecture.Lesson("cpu", quick=True)
    quick.shows("3.6", "It reads 98.00 %", True, full=True)
    quick.shows("3.6", "It reads 12.00 %", False, full=True)
    assert capsys.readouterr().out == "" and passed(quick, "3.6") == [None, None]
    quick.shows("3.1", "a claim", False)
    assert passed(quick, "3.1") == [False]
    for how, steps in ((quick, 10), (lesson, 12)):
        assert len(lecture.train(how, "", nn.Linear(2, 2), 12, 0.1, lambda _: toy())[0]) == steps


def test_numbers_of_16_bits_are_for_processors_that_have_them(lecture, swap, monkeypatch):
    for able, kind in ((True, torch.bfloat16), (False, torch.float32)):
        swap("BFLOAT16", able)
        with lecture.mixed_precision(torch.ones(1)):
            assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == kind
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch, "autocast", lambda *how: how)  # an older NVIDIA card
    assert lecture.mixed_precision(Mock(is_cuda=True))[1:] == (torch.bfloat16, False)


def test_lines_fit_the_terminal_and_an_odd_stdout(lecture, capsys, monkeypatch):
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        lecture.say(TEXT)
        out = capsys.readouterr().out
        assert columns - 20 < max(map(len, out.splitlines())) <= columns
        assert out.split() == TEXT.split() and "\n\n" in out
    ascii_only, parts = io.TextIOWrapper(io.BytesIO(), encoding="ascii"), []
    for out in (ascii_only, Mock(spec=["write", "flush"], write=parts.append)):
        monkeypatch.setattr(sys, "stdout", out)
        lecture.say(TEXT)
    for text in (ascii_only.buffer.getvalue().decode("ascii"), "".join(parts)):
        assert text.split().count("reads") == 9 and text.split().count("moves") == 30


def test_curves_and_pictures_show_what_they_are_given(lecture, lesson, tmp_path, capsys):
    assert lecture.curve([0, 1, 2, 3, 4, 5, 6, 7], 0, 7) == "▁▂▃▄▅▆▇█"
    assert lecture.curve([-9, 99], 0, 7) == "▁█" and lecture.curve([0, 1, 2], 0, 2, " .#") == " .#"
    two = "two", "A title", [tensor([[0.0, 5.0]]), tensor([[3.0, 1.0]])], ["first", "second"], 2
    lesson.picture(*two)
    assert (tmp_path / "two.png").stat().st_size > 500
    lesson.figures = tmp_path / "two.png"  # no folder can be made here, which stops nothing
    lesson.picture(*two)
    assert "No picture" in capsys.readouterr().out


def toy(rows=400):  # points of the plane, and on which side of a diagonal each lies
    x = torch.randn(rows, 2)
    return x, (x[:, 0] > x[:, 1]).long()


class Spy(nn.Linear):  # remembers whether it was in training
    def forward(self, x):
        self.seen = [*getattr(self, "seen", []), self.training]
        return super().forward(x)


def test_training_finds_the_rule_with_a_rate_that_rises_and_falls(lecture, lesson, monkeypatch):
    (x, y), model, rates, step = toy(), Spy(2, 2).eval(), [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *more: (
        rates.append(self.param_groups[0]["lr"]), step(self, *more)))
    losses, seconds = lecture.train(lesson, "toy", model, 60, 0.1, lambda _: (x, y))
    assert len(losses) == 60 and losses[-1] < 0.3 < losses[0] and seconds > 0 and all(model.seen)
    assert max(rates) == pytest.approx(0.1, rel=0.05) and rates[0] < 0.01 and rates[-1] < 0.001
    assert lecture.accuracy(model, *toy()) > 95


def test_gradients_do_not_add_up_and_long_ones_are_clipped(lecture, lesson):
    (x, y), model = toy(8), nn.Linear(2, 2)
    lecture.train(lesson, "toy", model, 4, 1e-12, lambda _: (x, y))  # the weights hardly move
    (expected,) = torch.autograd.grad(F.cross_entropy(model(x), y), model.weight)
    torch.testing.assert_close(model.weight.grad, expected, rtol=0.02, atol=1e-2)
    lecture.train(lesson, "toy", model, 4, 1e-12, lambda _: (1e4 * x, y))
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert length == pytest.approx(1, abs=0.01)


def test_small_models_train_on_one_core_and_large_ones_on_all(lecture, lesson, monkeypatch):
    (x, y), used, large = toy(8), [], nn.Sequential(nn.Linear(2, 20_001), nn.Linear(20_001, 2))
    monkeypatch.setattr(lecture, "CORES", 2)
    for model in (large, nn.Linear(2, 2)):
        lecture.train(lesson, "toy", model, 1, 0.1, lambda _: used.append(
            torch.get_num_threads()) or (x, y))
    used.append(torch.get_num_threads())
    torch.set_num_threads(1)  # as conftest.py wants it
    assert used == [2, 1, 2]


def test_prediction_has_dropout_off_and_keeps_the_order_of_many_rows(lecture, lesson):
    x, model = torch.randn(2_501, 2), Spy(2, 2).train()
    found = lecture.predict(model, x)
    torch.testing.assert_close(found, F.linear(x, model.weight, model.bias))
    assert not any(model.seen) and not found.requires_grad
    logits = tensor([[3.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0], [0, 4.0, 0]])
    assert lecture.accuracy(nn.Identity(), logits, tensor([0, 0, 2, 0])) == 75


def test_fit_hands_back_and_keeps_the_percentage_of_the_test_rows(lecture, lesson):
    (x, y), (x_test, y_test) = toy(), toy(100)
    for wanted, right in ((y_test, 98), (1 - y_test, 2)):
        data = lecture.Data(x, y, x_test, wanted)
        found = lecture.fit(lesson, "toy", nn.Linear(2, 2), data, 60, 0.1, "points", 50)
        assert found == lesson.scores["toy"]["percent"] == pytest.approx(right, abs=2)
    assert lesson.scores["toy"]["parameters"] == 6 and len(lesson.scores["toy"]["losses"]) == 60


def test_fit_takes_each_row_once_a_round_in_a_new_order(lecture, lesson, monkeypatch):
    def train(lesson, name, model, steps, rate, batch):
        seen.extend(batch(step) for step in range(steps))
        return [1.0], 0.0

    seen, x = [], torch.arange(90.0)[:, None]
    monkeypatch.setattr(lecture, "train", train)
    data = lecture.Data(x, 2 * x[:, 0].long(), x[:2], tensor([0, 0]))
    lecture.fit(lesson, "toy", nn.Linear(1, 2), data, 27, 0.1, size=10)
    orders = torch.cat([y for _, y in seen]).view(3, 90)
    assert all(torch.equal(y, 2 * x[:, 0].long()) for x, y in seen)
    assert all(order.sort().values.tolist() == list(range(0, 180, 2)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders} | {tuple(range(0, 180, 2))}) == 4
