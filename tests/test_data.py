"""The data: whole, split as the sources split them, and the test part unseen."""

import hashlib

import pytest
import torch
from conftest import ROOT
from torchvision.datasets import MNIST

CPU = torch.device("cpu")


@pytest.mark.parametrize("file, md5", MNIST.resources)
def test_the_archives_are_the_official_ones(file, md5):
    assert hashlib.md5((ROOT / "data/MNIST/raw" / file).read_bytes()).hexdigest() == md5


@pytest.fixture(scope="module")
def mnist(lecture):
    return lecture.load_mnist(CPU)


def test_mnist_has_all_its_digits_normalised_by_the_training_pixels(mnist):
    x, y, x_test, y_test = mnist
    assert x.shape == (60000, 1, 28, 28) and x_test.shape == (10000, 1, 28, 28)
    assert y.shape == (60000,) and y_test.bincount().tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_no_test_digit_is_a_training_digit(mnist):
    x, _, x_test, _ = mnist
    train = {image.numpy().tobytes() for image in x}
    assert not any(image.numpy().tobytes() in train for image in x_test)


def test_loading_unpacks_nothing_into_the_checkout(mnist):
    assert {path.suffix for path in (ROOT / "data/MNIST/raw").iterdir()} == {".gz"}


def test_letters_are_split_in_the_usual_way_and_standardised_by_the_training_rows(lecture):
    x, y, x_test, y_test = lecture.load_letters(CPU)
    assert x.shape == (16000, 16) and x_test.shape == (4000, 16)
    torch.testing.assert_close(x.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(16), atol=1e-4, rtol=0)
    assert x_test.mean(0).abs().max() > 1e-3  # their own mean was not used
    first = (ROOT / "data/letter-recognition.csv").read_text().splitlines()[1]
    assert chr(y[0] + ord("A")) == first.strip('"')[0]
    assert set(y_test.tolist()) == set(range(26))


def test_the_last_tenth_of_the_novel_is_unseen_and_nothing_is_lost(lecture):
    seen, unseen = lecture.load_novel()
    whole = (ROOT / "data/pride-and-prejudice.txt").read_text(encoding="utf-8")
    assert len(seen) + len(unseen) == len(whole)
    assert len(unseen) == pytest.approx(len(whole) / 10, abs=1)
    assert (seen + unseen).replace("\n", " ") == whole.replace("\n", " ")
    assert unseen[:300] not in seen


def test_next_character_targets_are_the_text_one_step_on(lecture):
    x, y = next(lecture.excerpts(torch.arange(1000), 100, 32))
    assert x.shape == y.shape == (32, 100)
    assert torch.equal(y, x + 1)


def test_recall_asks_for_the_first_symbol_after_the_last(lecture):
    batches = list(lecture.recall_batches(50, CPU))
    assert [batches[0][0].shape[1], batches[-1][0].shape[1]] == [2, 100]
    for x, y in batches:
        assert torch.equal(y[:, -1], x[:, 0])
        assert (y[:, :-1] == -100).all()
