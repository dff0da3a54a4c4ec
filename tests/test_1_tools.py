"""What judges, trains, measures, prints and draws."""

import io
import math
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from conftest import passed
from torch import nn, ones, tensor

NAN = math.nan


@pytest.mark.parametrize(
    "ours, theirs, holds",
    [
        (tensor([1.0]), tensor([1.000001]), True),
        (tensor([1.0]), tensor([1.00005]), False),
        (tensor([9e-5, -9e-5]), torch.zeros(2), False),
        (ones(3), ones(3, 1), False),
        (ones(3), ones(1), False),
        (ones(3), ones(3, dtype=torch.long), False),
        (ones(3), ones(3, dtype=torch.double), False),
        (tensor([NAN]), tensor([NAN]), False),
        ([ones(2), ones(2)], [ones(2)], False),
        ([ones(2), ones(2)], [ones(2), 2 * ones(2)], False),
        ([26, 14], [26, 14], True),
        (7_234_561, 7_234_560, False),
        (tensor([[4, 90_000]]), tensor([[3, 90_000]]), False),
    ],
)
def test_the_same_has_equal_shapes_types_and_numbers(lesson, ours, theirs, holds):
    lesson.same("They agree", ours, theirs)
    assert passed(lesson, "0.0") == [holds]


def test_a_claim_is_a_sentence_with_its_row_and_holds_or_not(lesson, capsys):
    lesson.shows("It reads 98.00 %", True)
    lesson.shows("It reads 12.00 %", tensor(3.0) > 4)
    good, bad = capsys.readouterr().out.splitlines()
    assert good == "✓ It reads 98.00 %. (0.0)"
    assert bad.startswith("✗ NOT SHOWN") and bad.endswith("It reads 12.00 %. (0.0)")
    first = {"row": "0.0", "sentence": "It reads 98.00 %", "passed": True}
    assert lesson.claims[0] == first and lesson.claims[1]["passed"] is False


def test_a_part_begins_with_its_own_words_and_from_the_seed(lecture, capsys):
    def show_it(lesson):
        """7.5 A title

        A question over
        two lines?
        """

    lesson = lecture.Lesson("cpu", seed=7)
    drawn = []
    for _ in range(2):
        lesson.begin(show_it)
        drawn.append(torch.rand(1).item())
    torch.manual_seed(7)
    assert drawn == 2 * [torch.rand(1).item()] and lesson.row == "7.5"
    out = capsys.readouterr().out
    assert out == 2 * "\n7.5 A title\nA question over two lines?\n"


def test_quick_leaves_out_what_only_a_full_training_shows(lecture, capsys):
    lesson = lecture.Lesson("cpu", quick=True)
    for full in (True, False):
        lesson.begin(test_quick_leaves_out_what_only_a_full_training_shows, full=full)
        lesson.shows("It reads 12.00 %", False)
        lesson.same("They agree", 1, 1)
    assert [claim["passed"] for claim in lesson.claims] == [None, True, False, True]
    assert capsys.readouterr().out.count("It reads") == 1
    losses, _ = lecture.train(lesson, nn.Linear(2, 2), lambda _: side_of(8), 400, 0.1)
    assert len(losses) == 10


test_quick_leaves_out_what_only_a_full_training_shows.__doc__ = "7.6 A title"


def side_of(rows):
    """Points of the plane, and on which side of a diagonal each lies."""
    x = torch.randn(rows, 2)
    return x, (x[:, 0] > x[:, 1]).long()


class Witness(nn.Linear):
    """Remembers what it was given, and whether it was in training."""

    def forward(self, x):
        self.given = [*getattr(self, "given", []), x]
        self.trained = [*getattr(self, "trained", []), self.training]
        return super().forward(x)


def test_training_learns_and_looks_every_25_steps(lecture, lesson):
    model = Witness(2, 2).eval()
    points, looked = side_of(400), []

    def look():
        looked.append(len(getattr(model, "given", [])))
        model.eval()

    losses, seconds = lecture.train(lesson, model, lambda _: points, 60, 0.1, look)
    assert len(losses) == 60 and losses[-1] < 0.3 < losses[0] and seconds > 0
    assert all(model.trained) and looked == [0, 25, 50]
    assert lecture.accuracy(model, *side_of(500)) > 95


def test_a_short_trainings_rate_rises_then_falls_and_gradients_are_cut(lecture):
    model, rates = nn.Linear(2, 2), []
    optimizer = lecture.short_training(model, 60, 0.1)
    for _ in range(60):
        rates.append(optimizer.param_groups[0]["lr"])
        for weights in model.parameters():
            weights.grad = 1e4 * torch.ones_like(weights)
        optimizer.step()
        gradient = torch.cat([weights.grad.flatten() for weights in model.parameters()])
        assert gradient.norm().item() == pytest.approx(1, abs=0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates[0] < 0.01 and rates[-1] < 0.001 and 0 < rates.index(max(rates)) < 30


def test_gradients_of_several_steps_do_not_add_up(lecture, lesson):
    (x, y), model = side_of(8), nn.Linear(2, 2)
    lecture.train(lesson, model, lambda _: (x, y), 4, 1e-12)  # the weights hardly move
    (expected,) = torch.autograd.grad(F.cross_entropy(model(x), y), model.weight)
    torch.testing.assert_close(model.weight.grad, expected, rtol=0.01, atol=1e-3)


def test_fit_takes_each_row_once_a_round_each_time_in_a_new_order(lecture, lesson):
    x = torch.arange(90.0)[:, None]
    model = Witness(1, 2)
    data = lecture.Data(x, (x[:, 0] > 45).long(), x, x)
    lecture.fit(lesson, model, data, steps=27, rate=0.1, rows=10)
    orders = torch.cat(model.given).view(3, 90).tolist()
    assert all(sorted(order) == list(range(90)) for order in orders)
    assert len(set(map(tuple, [*orders, range(90)]))) == 4


def test_fit_shows_each_row_with_its_own_answer(lecture, lesson):
    data, model = lecture.Data(*side_of(400), *side_of(500)), nn.Linear(2, 2)
    lecture.fit(lesson, model, data, steps=60, rate=0.1, rows=50)
    assert lecture.accuracy(model, data.x_test, data.y_test) > 95


def test_an_interrupted_training_leaves_torch_as_it_was(lecture, lesson):
    def interrupt(step):
        raise KeyboardInterrupt

    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        lecture.train(lesson, nn.Linear(2, 2), interrupt, 3, 0.1)
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    torch.set_num_threads(1)  # as conftest.py wants it
    assert (threads, gradients) == (2, True)


def test_prediction_is_no_training_and_keeps_the_order_of_many_rows(lecture):
    x, model = torch.randn(1_201, 2), Witness(2, 2).train()
    found = lecture.predict(model, x)
    torch.testing.assert_close(found, F.linear(x, model.weight, model.bias))
    assert not any(model.trained) and not found.requires_grad


def test_accuracy_loss_and_size_are_those_by_hand(lecture):
    logits = tensor([[3.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0], [0, 4.0, 0]])
    assert lecture.accuracy(nn.Identity(), logits, tensor([0, 0, 2, 0])) == 75
    even = torch.zeros(5, 7, 3)  # at each of 7 places, three classes
    places = torch.randint(3, (5, 7))
    assert lecture.mean_loss(nn.Identity(), even, places) == pytest.approx(math.log(3))
    assert lecture.parameters(nn.Linear(3, 4)) == (3 + 1) * 4
    smooth = lecture.smooth([1.0, 3.0, 5.0, 7.0], width=2)
    assert smooth == [1.0, 2.0, 4.0, 6.0]


def test_a_tables_numbers_stand_below_one_another(lesson, capsys):
    rows = {"CNN": [99.3, tensor(1_234), "maps"], "the MLP": [0.00004, 7, "any order"]}
    lesson.table("model", ["% right", "weights", "because"], rows)
    head, cnn, mlp = capsys.readouterr().out.splitlines()
    assert "99.3" in cnn and "1,234" in cnn and "4e-05" in mlp
    assert cnn.index("99.3") + 4 == mlp.index("4e-05") + 5 == head.index("right") + 5
    assert cnn.index("maps") == mlp.index("any order") == head.index("because")


def test_lines_fit_the_terminal_whole(lecture, capsys, monkeypatch):
    text = "Of 10,000 digits it reads " * 9 + "✓\n\n" + "✗ it moves " * 30
    for columns in (80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        lecture.write(text)
        out = capsys.readouterr().out
        longest = max(map(len, out.splitlines()))
        assert min(columns, 100) - 20 < longest <= min(columns, 100)
        assert out.split() == text.split() and "\n\n" in out


def test_text_arrives_on_any_kind_of_screen(lecture, monkeypatch):
    parts = []
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    nameless = types.SimpleNamespace(write=parts.append, flush=lambda: None)
    for screen in (ascii_only, nameless, None):  # None: pythonw has none at all
        monkeypatch.setattr(sys, "stdout", screen)
        lecture.write("✓ it reads █ 98 %")
    assert ascii_only.buffer.getvalue().split() == b"? it reads ? 98 %".split()
    assert "".join(parts) == "✓ it reads █ 98 %\n"


def pixels_of(image, colour):
    """Where a colour stands: [n, 2], row and column."""
    wanted = tensor([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return (raw.view(image.height, image.width, 3) == wanted).all(2).nonzero()


def curve_and_name(image, colour):
    """The pixels of a curve and those of its name, which stands at its right."""
    places = pixels_of(image, colour)
    columns = places[:, 1].unique()
    gaps = columns.diff()
    end = columns[int((gaps > 8).nonzero()[0])]  # a letter's gaps are smaller
    return places[places[:, 1] <= end], places[places[:, 1] > end]


def peak(image, colour):
    """How far right and how high a curve's first highest place is, 0 to 1."""
    curve, _ = curve_and_name(image, colour)
    top, left = curve.amin(0).tolist()
    bottom, right = curve.amax(0).tolist()
    at = curve[curve[:, 0] == top][:, 1].float().mean().item()
    last = curve[curve[:, 1] >= right - 4][:, 0].float().mean().item()
    return (at - left) / (right - left), (bottom - last) / (bottom - top)


def test_a_plot_has_the_highest_value_highest_and_the_last_at_the_right(lecture):
    blue = lecture.COLOURS[0]
    image = lecture.draw_plot("title", {"loss": [0, 1, 5, 2]}, "step", "loss")
    across, last = peak(image, blue)
    assert across == pytest.approx(2 / 3, abs=0.03)
    assert last == pytest.approx(2 / 5, abs=0.05)


def test_logarithmic_axes_are_logarithmic(lecture):
    def drawn(log, values, x=None):
        return lecture.draw_plot("t", {"a": values}, "step", "loss", x, log)

    blue = lecture.COLOURS[0]
    for log, height in (("log y", 1 / 2), ("", 9 / 99)):
        _, last = peak(drawn(log, [1, 100, 10]), blue)
        assert last == pytest.approx(height, abs=0.04)
    for log, place in (("log x", 1 / 3), ("", 3 / 63)):
        across, _ = peak(drawn(log, [0, 5, 0, 0], [1, 4, 16, 64]), blue)
        assert across == pytest.approx(place, abs=0.03)


@pytest.mark.parametrize("end", [0, 1])
def test_names_at_the_ends_of_curves_do_not_overlap(lecture, end):
    curves = {f"model {n}": [1 - end, n / 4, end] for n in range(5)}
    image = lecture.draw_plot("title", curves, "step", "loss")
    rows = []
    for colour in lecture.COLOURS[:5]:
        places = pixels_of(image, colour)
        name = places[places[:, 1] > places[:, 1].max() - 40][:, 0]
        rows.append((name.min().item(), name.max().item()))
    rows.sort()
    assert all(one[1] < other[0] for one, other in zip(rows, rows[1:], strict=False))
    assert rows[-1][1] < image.height - 3  # none is cut off


@pytest.mark.parametrize(
    "curves",
    [
        {"one point": [3.0]},
        {"equal": [2.0, 2.0, 2.0]},
        {"none": [1.0, NAN, 3.0], "far": [1e9, -1e9, math.inf]},
        {"diverged": [NAN, NAN], "fine": [1.0, 2.0]},
        {"a curve with a name as long as nobody would give one, or would they": [1, 2]},
    ],
)
@pytest.mark.parametrize("log", ["", "log y"])
def test_odd_curves_are_drawn_all_the_same(lecture, lesson, curves, log):
    lesson.plot("title", curves, "step", "loss", None, log)
    assert lesson.story[-1][0] == "image"


def test_tiles_are_darkest_where_the_number_is_largest(lecture):
    tiles = [tensor([[0.0, 5.0], [3.0, 1.0]]), tensor([[2.0, 2.0], [2.0, 2.0]])]
    words = [["the", "dog"]] * 2
    for more in ((), words):
        image = lecture.draw_tiles("title", tiles, ["first", "second"], 2, more)
        frame = pixels_of(image, "#999999")
        frame = frame[frame[:, 1] < image.width / 2]
        top, left = frame.amin(0).tolist()
        bottom, right = frame.amax(0).tolist()
        places = [(x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]
        light = [
            sum(
                image.getpixel(
                    (left + round(x * (right - left)), top + round(y * (bottom - top)))
                )
            )
            for x, y in places
        ]
        assert light[0] == 3 * 255 and light[1] < light[2] < light[3] < light[0]
