"""Formulas by hand and GPT: they hold for any numbers, and fail once they are wrong."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

PARTS = "neuron learning optimizers outputs layers convolution depth steps gradients "
PARTS += "memory attention gpt2 generation cost sight positions senses opinions"


@pytest.mark.parametrize("part", PARTS.split())
def test_a_short_parts_claims_hold_from_a_seed_nobody_chose(lecture, part, tmp_path):
    lesson = lecture.Lesson("cpu", seed=29, figures=tmp_path)
    gpt2 = [lesson.load("GPT-2")[1]] if part == "generation" else []
    getattr(lecture, f"show_{part}")(lesson, *map(lecture.GPT.with_weights_of, gpt2))
    assert {claim["passed"] for claim in lesson.claims} == {True}


def test_the_chain_rule_by_hand_is_autograds_for_any_net(lecture):
    for hidden, points in ((1, 3), (5, 40), (30, 7)):
        sizes = (2, hidden), (hidden,), (hidden, 1), (1,)
        weights = [torch.randn(*size).double().requires_grad_() for size in sizes]
        net = lecture.Net(*weights)
        x, y = torch.randn(points, 2).double(), (torch.rand(points, 1) < 0.5).double()
        loss = lecture.loss_of(lecture.forward(net, x)[1], y)
        theirs = torch.autograd.grad(loss, list(net))
        torch.testing.assert_close(list(lecture.backward(net, x, y)), list(theirs))


def test_networks_of_any_size_are_pytorchs(lecture):
    close = torch.testing.assert_close
    for d, hidden, length in ((1, 1, 1), (7, 3, 20), (4, 32, 9)):
        x, rnn, lstm = torch.randn(length, d), nn.RNN(d, hidden), nn.LSTM(d, hidden)
        close(lecture.rnn_by_hand(rnn, x), rnn(x)[0])
        h, _, c = lecture.lstm_by_hand(lstm, x)
        close((h, (h[-1:], c[None])), lstm(x))
        f = lecture.lstm_by_hand(lecture.open_forget_gate(lstm), 0 * x)[1]
        assert f.shape == (length, hidden) and 0.9 < f[0].mean() < 0.98
    for size, stride in ((5, 3), (2, 1), (3, 4)):
        image, weight = torch.randn(3, 12, 10), torch.randn(3, size, size)
        theirs = F.conv2d(image, weight[None], torch.tensor([0.7]), stride)[0]
        close(lecture.convolve(image, weight, 0.7, stride), theirs)
    image = torch.arange(6.0).view(1, 2, 3)  # paper comes in, nothing comes round
    assert lecture.shift_right(image, 1).tolist() == [[[0, 0, 1], [0, 3, 4]]]


@pytest.mark.parametrize("size", [(8, 1, 1, 11, 6), (24, 3, 2, 50, 9)])
@torch.no_grad()
def test_gpt_with_the_weights_of_any_gpt2_says_what_it_says(lecture, size):
    names = "n_embd n_head n_layer vocab_size n_positions initializer_range".split()
    config = GPT2Config(**dict(zip(names, [*size, 0.3], strict=True)))
    library = GPT2LMHeadModel(config).eval()
    gpt, ids = lecture.GPT.with_weights_of(library), torch.randint(7, (3, size[-1]))
    for length in (1, size[-1] // 2, size[-1]):
        logits, theirs = gpt(ids[:, :length]), library(ids[:, :length]).logits
        assert torch.allclose(logits, theirs, atol=1e-4, rtol=1e-4)
        whole = gpt(ids)[:, :length]  # no position sees a later one
        assert torch.allclose(logits, whole, atol=1e-4, rtol=1e-4)


def test_tables_count_as_witten_and_bell_did(lecture, monkeypatch):
    pieces = [0, 0, 1, 0, 0, 1], [1, 0, 0, 1], 2.0
    monkeypatch.setattr(lecture, "load_pieces", lambda *_: pieces)
    p = [1 / lecture.load_tokenizer().get_vocab_size()]
    for came, kinds, total in ((2, 2, 6), (2, 2, 4), (2, 1, 2), (1, 1, 1)):
        p.append((came + kinds * p[-1]) / (total + kinds))
    bits = lecture.count_tables.__wrapped__()
    assert bits == pytest.approx([-math.log2(each) / 2.0 for each in p[1:]])


def test_bits_a_character_are_those_of_a_guess(lecture, tmp_path):
    lesson = lecture.Lesson("cpu", quick=True, figures=tmp_path)
    n, (_, _, letters) = 3_000, lecture.load_pieces(True)
    guess = nn.Embedding.from_pretrained(torch.zeros(n, n), freeze=False)
    bits = lecture.learn_novel(lesson, "guess", guess, rate=1e-9)
    curve = lesson.scores["novel: guess"]["curve"]
    assert bits == pytest.approx(math.log2(n) / letters, rel=1e-3)
    assert curve == pytest.approx([bits] * 2, rel=1e-3)
