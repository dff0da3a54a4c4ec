"""What judges, trains, measures, prints and draws."""

import io
import math
import sys
from itertools import islice, repeat

import pytest
import torch
import torch.nn.functional as F
from conftest import passed
from torch import nn, ones, tensor

NAN = math.nan
SAME = [
    (tensor([1.0]), tensor([1.000001]), True),
    (tensor([1.0]), tensor([1.00005]), False),
    (tensor([9e-5, -9e-5]), torch.zeros(2), False),
    (ones(3), ones(3, 1), False),
    (ones(3), ones(3, dtype=torch.long), False),
    (tensor([NAN]), tensor([NAN]), False),
    ([ones(2), ones(2)], [ones(2), 2 * ones(2)], False),
    ([26, 7_234_560], [26, 7_234_560], True),
    ([26, 7_234_561], [26, 7_234_560], False),
]


@pytest.mark.parametrize("ours, theirs, holds", SAME)
def test_the_same_has_equal_shapes_types_and_numbers(lesson, ours, theirs, holds):
    lesson.same("They agree", ours, theirs)
    assert passed(lesson, "0.0") == [holds]


def show_it(lesson):
    """7.5 A title

    A question over
    two lines?
    """


def test_a_part_begins_with_its_words_and_from_the_seed(lecture, capsys):
    lesson, drawn = lecture.Lesson("cpu", seed=7), []
    for _ in range(2):
        lesson.begin(show_it)
        drawn.append(torch.rand(1).item())
    torch.manual_seed(7)
    assert drawn == 2 * [torch.rand(1).item()] and lesson.row == "7.5"
    told = "\n7.5 A title\nA question over two lines?\n"
    assert capsys.readouterr().out == 2 * told


def test_a_claim_is_a_sentence_with_its_row_which_quick_may_leave_out(lecture, capsys):
    lesson = lecture.Lesson("cpu", quick=True)
    for full in (False, True):
        lesson.begin(show_it, full=full)
        lesson.shows("It reads 98.00 %", True)
        lesson.shows("It reads 12.00 %", tensor(3.0) > 4)
    _, _, _, good, bad, *rest = capsys.readouterr().out.splitlines()
    assert good == "✓ It reads 98.00 %. (7.5)" and "It reads" not in "".join(rest)
    assert bad.startswith("✗ NOT SHOWN") and bad.endswith("It reads 12.00 %. (7.5)")
    assert passed(lesson, "7.5") == [True, False, None, None]
    losses, _ = lecture.train(lesson, nn.Linear(2, 2), repeat(side_of(8)), 400, 0.1)
    assert len(losses) == 10  # quick


def side_of(rows):  # points, and on which side of a diagonal each lies
    x = torch.randn(rows, 2)
    return x, (x[:, 0] > x[:, 1]).long()


class Witness(nn.Linear):  # remembers what it was given, and if in training
    def forward(self, x):
        self.given = [*getattr(self, "given", []), x]
        self.trained = [*getattr(self, "trained", []), self.training]
        return super().forward(x)


def test_training_learns_and_looks_every_50_steps(lecture, lesson):
    model, points, looked = Witness(2, 2), side_of(400), []

    def look():
        looked.append(len(getattr(model, "given", [])))
        model.eval()

    losses, seconds = lecture.train(lesson, model, repeat(points), 60, 0.1, look)
    assert len(losses) == 60 and losses[-1] < 0.3 < losses[0] and seconds > 0
    assert all(model.trained) and looked == [0, 50]
    assert lecture.accuracy(model, *side_of(500)) > 95
    lecture.train(lesson, model, repeat(points), 4, 1e-12)  # it hardly moves
    loss = F.cross_entropy(model(points[0]), points[1])  # gradients do not add up
    gradient = torch.autograd.grad(loss, model.weight)[0]
    assert torch.allclose(gradient, model.weight.grad, 0.1)


def test_a_short_trainings_rate_rises_then_falls_and_gradients_are_cut(lecture):
    model, rates = nn.Linear(2, 2), []
    optimizer = lecture.short_training(model, 60, 0.1)
    for _ in range(60):
        rates.append(optimizer.param_groups[0]["lr"])
        for weights in model.parameters():
            weights.grad = 1e4 * ones(weights.shape)
        optimizer.step()
        gradient = torch.cat([weights.grad.flatten() for weights in model.parameters()])
        assert gradient.norm().item() == pytest.approx(1, abs=0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.01) and rates.index(max(rates)) < 30
    assert rates[0] < 0.01 and rates[-1] < 0.001


def test_batches_take_each_row_once_a_round_with_its_own_answer(lecture):
    x = torch.arange(90.0)[:, None]
    batches = islice(lecture.shuffled(lecture.Data(x, 2 * x, x, x), rows=20), 15)
    rows, answers = (torch.cat(part) for part in zip(*batches, strict=True))
    assert torch.equal(answers, 2 * rows)
    orders = rows.view(3, 90).tolist()
    assert all(sorted(order) == list(range(90)) for order in orders)
    assert len(set(map(tuple, [*orders, range(90)]))) == 4  # each time in a new order


def test_predictions_accuracy_loss_and_size_are_those_by_hand(lecture):
    x, model = torch.randn(1_201, 2), Witness(2, 2).train()
    found = lecture.predict(model, x)
    torch.testing.assert_close(found, F.linear(x, model.weight, model.bias))
    assert not any(model.trained) and not found.requires_grad
    logits = tensor([[3.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0], [0, 4.0, 0]])
    assert lecture.accuracy(nn.Identity(), logits, tensor([0, 0, 2, 0])) == 75
    even, places = torch.zeros(5, 7, 3), torch.randint(3, (5, 7))  # 7 places, 3 classes
    assert lecture.mean_loss(nn.Identity(), even, places) == pytest.approx(math.log(3))
    assert lecture.parameters(nn.Linear(3, 4)) == (3 + 1) * 4


def test_text_arrives_on_any_kind_of_screen(lecture, monkeypatch):
    nameless, plain = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii")
    for screen in (plain, nameless, None):  # no encoding; pythonw has none at all
        monkeypatch.setattr(sys, "stdout", screen)
        lecture.write("✓ it reads █ 98 %")
    assert plain.buffer.getvalue().split() == b"? it reads ? 98 %".split()
    assert nameless.getvalue() == "✓ it reads █ 98 %\n"


def test_a_plot_has_the_highest_value_highest_and_names_round_ones(lecture, lesson):
    pixel, named = lecture.axis([3, 1, 39], 800, 100)
    assert 800 > pixel(1) > round(pixel(20)) == 450 > pixel(39) > 100
    assert {10, 20, 30} <= set(named) and len(named) <= 9
    assert lecture.axis([-9.4, 2], 0, 1, least=5)[1] == [-5, 0]
    none = {"diverged": [NAN, NAN], "equal": [2.0, 2.0], "some": [NAN, 3.0]}
    lesson.plot("title", none, "step", "loss")  # is drawn all the same
    lesson.plot("title", {"diverged": [NAN]}, "step", "loss", log=True)
