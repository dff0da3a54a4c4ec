"""Section 0: the judge, the training loop, the evaluation, the files."""

import itertools
import math

import pytest
import torch
from torch import nn


def verdict(lesson):
    return lesson.checks[-1]["passed"]


@pytest.mark.parametrize(
    "ours, reference, passed",
    [
        (1.0, 1.0, True),
        (1.0, 1.00005, True),
        (1.0, 1.001, False),
        (1e6, 1e6 + 50, True),
        (1e6, 1e6 + 500, False),
        (math.nan, 1.0, False),
        (math.inf, 1.0, False),
    ],
)
def test_an_equality_holds_within_rounding_and_no_further(lesson, ours, reference, passed):
    lesson.check("0.0 a claim", ours, reference)
    assert verdict(lesson) is passed


def test_an_equality_needs_the_same_shape(lesson):
    lesson.check("0.0 a claim", torch.ones(3), torch.ones(3, 1))
    assert verdict(lesson) is False


def test_one_wrong_entry_of_many_is_enough_to_fail(lesson):
    reference = torch.randn(10, 10)
    ours = reference.clone()
    ours[7, 3] += 0.01
    lesson.check("0.0 a claim", ours, reference)
    assert verdict(lesson) is False
    assert lesson.checks[-1]["difference"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "relation, truth",
    [
        (">", (False, False, True)),
        (">=", (False, True, True)),
        ("<", (True, False, False)),
        ("<=", (True, True, False)),
    ],
)
def test_a_comparison_says_what_its_sign_says(lesson, relation, truth):
    for ours in (1, 2, 3):
        lesson.check("0.0 a claim", ours, 2, relation)
    assert tuple(check["passed"] for check in lesson.checks) == truth


def test_plain_numbers_are_compared_in_double_precision(lesson):
    lesson.check("0.0 a claim", 1 + 1e-12, 1, ">")
    assert verdict(lesson) is True


def test_what_is_no_number_is_null_in_the_report(lesson):
    lesson.check("0.0 a claim", math.nan, 2)
    lesson.check("0.0 a claim", torch.ones(3), torch.ones(2))
    assert [check["difference"] for check in lesson.checks] == [None, None]
    assert verdict(lesson) is False


def test_a_file_is_written_through_a_link(lecture, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    lecture.write_whole(link, b"new")
    assert link.is_symlink() and target.read_text() == "new"


def test_not_a_number_passes_no_comparison(lesson):
    for relation in (">", ">=", "<", "<="):
        lesson.check("0.0 a claim", math.nan, 2, relation)
    assert not any(check["passed"] for check in lesson.checks)


def test_a_row_that_needs_full_training_is_skipped_by_quick_never_passed(lesson, capsys):
    lesson.options.quick = True
    lesson.check("3.6 a claim", 100, 99, ">", full=True)
    assert verdict(lesson) is None
    assert "skipped" in capsys.readouterr().out
    lesson.check("3.1 a claim", 1, 2)
    assert verdict(lesson) is False


def test_a_check_prints_its_row_its_claim_and_its_figure(lesson, capsys):
    lesson.check("3.1 this = that", 1.0, 1.0)
    lesson.check("3.6 this against that", 1.0, 2.0, ">")
    first, second = capsys.readouterr().out.splitlines()
    assert " ".join(first.split()) == "ok 3.1 this = that: largest difference 0"
    assert " ".join(second.split()) == "FAILED 3.6 this against that: 1 > 2"


def toy(n=400):
    torch.manual_seed(1)
    x = torch.randn(n, 2)
    return x, (x[:, 0] > x[:, 1]).long()


def test_training_lowers_the_loss_and_finds_the_rule(lecture):
    x, y = toy()
    model = nn.Linear(2, 2)
    losses, seconds = lecture.train(model, lecture.minibatches(x, y, 50), 60, 0.1, "toy")
    assert len(losses) == 60
    assert losses[-1] < 0.3 < losses[0]
    assert lecture.accuracy(model, *toy()) > 95
    assert 0 < seconds < 60


def test_training_changes_every_parameter_and_leaves_nothing_else_behind(lecture):
    x, y = toy()
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    before = [p.clone() for p in model.parameters()]
    lecture.train(model, lecture.minibatches(x, y, 50), 3, 0.1, "toy")
    assert all((old != new).any() for old, new in zip(before, model.parameters(), strict=True))


def test_gradients_do_not_pile_up_from_step_to_step(lecture):
    x, y = toy(8)
    model = nn.Linear(2, 2)
    lecture.train(model, itertools.repeat((x, y)), 2, 1e-12, "toy")  # the weights hardly move
    left = model.weight.grad.clone()
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    torch.testing.assert_close(left, model.weight.grad, rtol=0.02, atol=1e-3)


def test_long_gradients_are_clipped_to_length_one(lecture):
    x, y = toy(8)
    model = nn.Linear(2, 2)
    lecture.train(model, itertools.repeat((1e4 * x, y)), 1, 1e-9, "toy")
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert length == pytest.approx(1, abs=0.01)


def test_positions_that_are_not_asked_for_do_not_count(lecture):
    x, y = toy(8)
    unasked = torch.where(torch.arange(8) < 4, y, -100)
    model = nn.Linear(2, 2)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    all_rows = lecture.train(model, [(x, unasked)], 1, 0.1, "toy")[0]
    model.load_state_dict(state)
    half = lecture.train(model, [(x[:4], y[:4])], 1, 0.1, "toy")[0]
    assert all_rows == pytest.approx(half, abs=0.02)


def test_a_loss_that_is_no_number_ends_the_training_with_a_sentence(lecture):
    x, y = toy(8)
    with pytest.raises(ArithmeticError, match="toy.*no longer a number"):
        lecture.train(nn.Linear(2, 2), itertools.repeat((x * math.nan, y)), 3, 0.1, "toy")


def test_the_rate_rises_first_and_ends_near_zero(lecture, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    x, y = toy()
    lecture.train(nn.Linear(2, 2), lecture.minibatches(x, y, 50), 40, 0.1, "toy")
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[0] < 0.01 and rates[-1] < 0.001


def test_every_row_comes_once_a_round_in_a_new_order_each_time(lecture):
    x = torch.arange(10)
    batches = lecture.minibatches(x, 2 * x, 3)
    rounds = [[next(batches) for _ in range(4)] for _ in range(2)]
    orders = [torch.cat([b[0] for b in part]).tolist() for part in rounds]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != list(range(10)) != orders[0]
    assert all((y == 2 * x).all() for part in rounds for x, y in part)


def test_evaluation_switches_dropout_off_and_training_switches_it_on(lecture):
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(self.training)
            return super().forward(x)

    x, y = toy(200)
    model = Spy(2, 2)
    lecture.predict(model, x)
    lecture.train(model, lecture.minibatches(x, y, 50), 1, 0.1, "toy")
    lecture.accuracy(model, x, y)
    assert seen == [False, True, False]


def test_prediction_keeps_the_order_of_many_rows_and_needs_no_gradient(lecture):
    x = torch.arange(2500.0)[:, None]
    out = lecture.predict(nn.Identity(), x)
    assert torch.equal(out, x)
    assert not lecture.predict(nn.Linear(1, 1), x).requires_grad


def test_accuracy_is_the_percentage_of_right_answers(lecture):
    logits = torch.eye(4)
    assert lecture.accuracy(nn.Identity(), logits, torch.tensor([0, 1, 2, 0])) == 75


def test_a_file_is_written_whole_or_not_at_all(lecture, tmp_path, monkeypatch):
    file = tmp_path / "new" / "report.json"
    lecture.write_whole(file, b"old")

    def fails(part, content):
        part.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(type(file), "write_bytes", fails)
    with pytest.raises(OSError, match="report.json could not be written: disk full"):
        lecture.write_whole(file, b"new")
    assert file.read_text() == "old"
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]


def test_a_curve_is_high_where_the_values_are_high(lecture):
    line = lecture.curve([8.0, 7, 6, 5, 4, 3, 2, 1])
    assert line.startswith("8.00 ") and line.endswith(" 1.000")
    bars = line.split()[1]
    assert len(bars) == 8 and len(set(bars)) == 8


def test_a_picture_has_its_brightest_pixel_white_and_enlarges_without_blur(lesson, tmp_path):
    from PIL import Image

    lesson.options.figures = tmp_path
    lesson.picture("two", "title", [torch.tensor([[0.0, 5.0]]), torch.tensor([[3.0, 1.0]])], 2, 10)
    pixels = Image.open(tmp_path / "two.png").convert("L")
    assert pixels.size == (6 + 2 * 26, 6 + 16)
    assert [pixels.getpixel((x, 10)) for x in (6, 15, 16, 25, 32, 51)] == [0, 0, 255, 255, 255, 0]
    assert lesson.figures == [str(tmp_path / "two.png")]
