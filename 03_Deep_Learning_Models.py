"""How does deep learning work? A lecture, tried out in twenty-nine small parts.

    python 03_Deep_Learning_Models.py                    everything, in order
    python 03_Deep_Learning_Models.py --only cnn lstm    some of mlp cnn lstm gpt2 bert
    python 03_Deep_Learning_Models.py --quick            short trainings: a first look

Read it from top to bottom. Each function `show_...` is one part. Its first lines are
what the screen says first; then comes the experiment, then what was found. The numbers
after a ✓ and in tables are from the very run that prints them; a few in brackets are
from tests/controls.py. Nine methods tell what was found (section 7 has their code):

    lesson.begin    begins a part (full=True: --quick leaves its claims out)
    lesson.say      prints a sentence ("h2": the title of a section)
    lesson.table    prints a table: corner, names of the columns, a row for each name
    lesson.plot     draws curves: title, curves, names of both axes, places on x
    lesson.picture  draws tiles of numbers, from white, the smallest, to blue
    lesson.same     claims that two results, or all of two lists, are equal
    lesson.shows    claims a sentence, if the condition behind it holds
    lesson.keep     keeps a model in lesson.models, and its line of the last table
    lesson.load     hands out a pretrained model (lesson.called: its name)

lesson.device is where it computes, lesson.quick whether trainings are to be short.

All of it, with the pictures, also stands in one page, data/figures/lesson.html. Left
out, because a minute cannot show them: T5 and translation, fine-tuning and prompting,
named entities, convolution over time, speech; and next-sentence prediction, which
failed its control.
"""

from __future__ import annotations

import argparse
import base64
import csv
import gc
import gzip
import html
import inspect
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
import traceback
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO, StringIO
from itertools import chain, count
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("This script needs Python 3.10 or newer.")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # technical: spares other programs
# this file's folder (a notebook has no __file__: its own)
HERE = Path(globals().get("__file__", "notebook")).resolve().parent
try:
    import torch
    import torch.nn.functional as F
    from PIL import Image, ImageDraw, ImageFont, ImageOps
    from tokenizers import Tokenizer
    from torch import Tensor, nn
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.transforms.functional import resized_crop, to_pil_image, to_tensor
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    needed = HERE / "requirements.txt"
    sys.exit(f'{missing}. Run:  "{sys.executable}" -m pip install -r "{needed}"')

DATA = HERE / "data"


# %% 1. How a network learns
#
# A primer of PyTorch, for whoever has not met it:
#   x = torch.tensor([[1., 2., 3.],   a tensor is an array of numbers; x.shape: [2, 3],
#                     [4., 5., 6.]])  two rows of three. [B, 3]: B such rows, a batch
#   x[0]   x[:, 1]   x[-1]            [1, 2, 3], row 0; [2, 5], column 1; the last row
#   x[[1, 0]]   x[x > 3]              rows 1 and 0, in this order; [4, 5, 6]
#   x * 2   x + y   x.exp()           number by number
#   x + b                             a row b, of shape [3], is added to every row of x
#                                     (and a column, [2, 1], to every column)
#   x.sum()   x.sum(0)   x.mean()     of all numbers; of each column, [3]; the mean.
#                                     (Axis 0 goes down the rows, 1 across, -1 the last)
#   x.T                               transposed, rows become columns: [3, 2]
#   x @ w                             matrix product: [2, 3] @ [3, 4] gives [2, 4] (with
#                                     more axes in front: so for each of them)
#   torch.cat([x, x])   .stack(...)   one below the other, [4, 3]; a new axis, [2, 2, 3]
#   x.view(3, 2)   x.flatten()        the same six numbers in another shape: [3, 2]; [6]
#   x[None]   x[:, None]              a new axis of one: [1, 2, 3]; [2, 1, 3]
#   x.item()   x.tolist()             a tensor's only number; its numbers as a list
#   x.to(device)                      onto the processor (CPU), or a graphics card
#   x.requires_grad_()                from now on it is noted what is computed from x;
#   loss.backward()                   after this, x.grad is dloss/dx, shaped like x: for
#                                     loss = (x**2).sum() it is 2 x
#   layer = nn.Linear(3, 4)           four neurons with three inputs: layer.weight is W
#                                     [4, 3] and layer.bias b [4], random at first
#   layer(x)                          x W^T + b: [2, 4]. (The lecture writes W x; here W
#                                     has a row for each neuron, x one for each example)
#   nn.Sequential(a, b)               layers, one after the other: x becomes b(a(x))
#   F.relu(x)   F.cross_entropy ...   functions without weights of their own
#   class M(nn.Module)                a model of one's own: __init__ makes its layers,
#                                     after super().__init__(); M()(x) calls forward(x)


def show_neuron(lesson: Lesson) -> None:
    """1.1 A neuron: a weighted sum of its inputs, plus a bias, then a non-linear f

    Three inputs, three weights, a bias. To learn (1.2) is to change weights and bias.
    """
    lesson.begin(show_neuron)
    x = torch.tensor([1.0, 2.0, 3.0])
    w = torch.tensor([0.5, -1.0, 0.75])
    b = torch.tensor(-0.5)

    # z = w_1 x_1 + w_2 x_2 + w_3 x_3 + b
    z = (w * x).sum() + b
    # ReLU(z) = max(0, z)
    relu = z.clamp(min=0)
    # Sigmoid(z) = 1 / (1 + e^-z)
    sigmoid = 1 / (1 + torch.exp(-z))
    # Tanh(z) = (e^z - e^-z) / (e^z + e^-z)
    tanh = (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))

    rows = {"input x": x, "weight w": w, "w times x": w * x}
    lesson.table("", ["first", "second", "third"], rows)
    told = f"With the bias, {b:.2f}, they make z = {z:.2f}. ReLU(z) = {relu:.2f}, "
    lesson.say(f"{told}Sigmoid(z) = {sigmoid:.2f}, Tanh(z) = {tanh:.2f}.")
    theirs = [F.linear(x, w, b), F.relu(z), torch.sigmoid(z), torch.tanh(z)]
    lesson.same("By hand as in PyTorch: z and f(z)", [z, relu, sigmoid, tanh], theirs)


def two_moons(points: int) -> tuple[Tensor, Tensor]:
    """Points of two half-moons: x [points, 2], and y [points, 1], 1: blue, 0: white."""
    y = (torch.rand(points, 1) < 0.5).float()  # rand: from 0 to 1, so about half
    angle = math.pi * torch.rand(points, 1)
    # the upper half of a circle, and a lower half, moved (cat: side by side)
    white = torch.cat([angle.cos(), angle.sin()], dim=1)  # [points, 2]
    blue = torch.cat([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    x = torch.where(y == 1, blue, white)  # blue where y is 1, else white
    return x + 0.1 * torch.randn(points, 2), y  # randn: around 0, mostly from -1 to 1


class Net(NamedTuple):
    """Weights and biases of two inputs, 16 hidden neurons, one output, under names."""

    w1: Tensor  # [2, 16], a column for each hidden neuron (nn.Linear has rows)
    b1: Tensor  # [16]
    w2: Tensor  # [16, 1]
    b2: Tensor  # [1]


def forward(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Points x [B, 2] -> hidden h [B, 16] -> p [B, 1], the probability of blue."""
    h = torch.tanh(x @ net.w1 + net.b1)
    p = torch.sigmoid(h @ net.w2 + net.b2)
    return h, p


def loss_of(p: Tensor, y: Tensor) -> Tensor:
    """How wrong p is (cross-entropy): 0 if it is sure and right everywhere."""
    # L = mean of -log(the probability that p gives to what is true), with the natural
    # logarithm; y is 1 or 0, so only one of the two terms counts
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def backward(net: Net, x: Tensor, y: Tensor) -> Net:
    """The chain rule, from the loss back to every weight: dL/dw, shaped like Net."""
    h, p = forward(net, x)
    # p = Sigmoid(z) has the slope dp/dz = p (1 - p), and dL/dz = dL/dp dp/dz.
    # For one point:
    # y = 1: L = -log p,       dL/dz = -1 / p * p (1 - p)      = p - 1 = p - y
    # y = 0: L = -log(1 - p),  dL/dz = 1 / (1 - p) * p (1 - p) = p     = p - y
    # And L is a mean of B points
    d_z = (p - y) / len(x)  # [B, 1]

    # z = h_1 w_1 + ... + h_16 w_16 + b, so dL/dw_i is the sum of h_i dL/dz over all
    # points. The 16 sums at once are a matrix product: [16, B] @ [B, 1]
    d_w2 = h.T @ d_z
    d_b2 = d_z.sum(0)

    # One layer back: h_i enters z with the weight w_i, so dL/dh_i = dL/dz w_i
    d_h = d_z @ net.w2.T  # [B, 1] @ [1, 16]: [B, 16]
    # h = tanh(s), and its slope is 1 - h^2, so dL/ds = dL/dh (1 - h^2)
    d_s = d_h * (1 - h**2)
    # s = x W1 + b1: for the weight from input 1 to neuron 3, say, dL/dw is the sum of
    # x_1 dL/ds_3 over all points. All 32 at once: [2, B] @ [B, 16], shaped like w1
    d_w1 = x.T @ d_s
    d_b1 = d_s.sum(0)
    return Net(d_w1, d_b1, d_w2, d_b2)


def learn(net: Net, x: Tensor, y: Tensor, steps: int) -> tuple[Net, list[float]]:
    """All of learning, over and over: returns the net, and the losses on the way."""
    losses = []
    for _ in range(steps):
        _, p = forward(net, x)  # 1. forward pass
        losses.append(loss_of(p, y).item())  # 2. loss
        gradient = backward(net, x, y)  # 3. backpropagation
        # 4. update: w <- w - rate dL/dw, for each w, with a learning rate of 1
        w1 = net.w1 - 1.0 * gradient.w1
        b1 = net.b1 - 1.0 * gradient.b1
        w2 = net.w2 - 1.0 * gradient.w2
        b2 = net.b2 - 1.0 * gradient.b2
        net = Net(w1, b1, w2, b2)
    return net, losses


def learn_alone(x: Tensor, y: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The same for a single neuron, p = Sigmoid(x w + b): returns w [2, 1], b [1]."""
    w = torch.zeros(2, 1)
    b = torch.zeros(1)
    for _ in range(steps):
        d_z = (torch.sigmoid(x @ w + b) - y) / len(x)
        w = w - 1.0 * x.T @ d_z
        b = b - 1.0 * d_z.sum(0)
    return w, b


def show_learning(lesson: Lesson) -> None:
    """1.2 Learning: loss, backpropagation, gradient descent, over and over

    Does a point lie on the white or on the blue half-moon? A single neuron learns it
    from 400 points, then 17: 16 hidden neurons with one on top of them.
    """
    lesson.begin(show_learning)
    x, y = two_moons(400)
    x_test, y_test = two_moons(1_000)
    w, b = learn_alone(x, y, steps=1_000)
    w1 = torch.randn(2, 16)  # random: equal ones would get equal gradients
    w2 = torch.randn(16, 1) / 4  # / 4, for a sum of 16 is large
    start = Net(w1, torch.zeros(16), w2, torch.zeros(1))
    after_30, _ = learn(start, x, y, steps=30)
    after_1000, losses = learn(start, x, y, steps=1_000)

    # p is over 0.5 where z = x w + b is over 0. PLACES [9600, 2] are the points of a
    # grid; draw_region draws what is said of them as a map (section 7)
    maps = [draw_region(PLACES @ w + b > 0, x, y)]
    right = [percent(x_test @ w + b > 0, y_test == 1)]
    for net in (start, after_30, after_1000):
        _, p = forward(net, PLACES)
        maps.append(draw_region(p > 0.5, x, y))
        _, p = forward(net, x_test)
        right.append(percent(p > 0.5, y_test == 1))

    names = ["one neuron", "17 neurons, untrained", "after 30 steps", "after 1,000"]
    captions = [f"{names[n]}\n{right[n]:.1f} % correct" for n in range(4)]
    lesson.picture("Dark: where each one says blue", maps, captions, columns=4)
    # copies (clone) of the four, for which PyTorch is to compute the gradients
    copies = [weights.clone().requires_grad_() for weights in start]
    _, p = forward(Net(*copies), x)  # *: the list's members, as four arguments
    loss_of(p, y).backward()  # PyTorch's backward; ours is the function above
    name = "By hand as in PyTorch: the first gradient of every weight and bias"
    lesson.same(name, list(backward(start, x, y)), [copy.grad for copy in copies])
    told = f"The 17's loss falls from {losses[0]:.2f} to {losses[-1]:.3f}; "
    told += f"{right[3]:.1f} % of new points are right (one neuron: {right[0]:.1f})"
    lesson.shows(told, losses[-1] < losses[0] / 10 and right[3] >= 97 and right[0] < 90)


STEEPNESS = torch.tensor([1.0, 0.001])  # of a valley: steep along w_1, flat along w_2


def with_pytorch(kind: Any) -> Tensor:
    """Where forty steps down the valley end; kind: torch.optim.SGD or Adam."""
    w = torch.ones(2).requires_grad_()
    optimizer = kind([w], lr=0.1)
    for _ in range(40):
        loss = (STEEPNESS * w**2 / 2).sum()  # 1. forward pass, 2. loss
        optimizer.zero_grad()  # else the new gradient would be added to the last one
        loss.backward()  # 3. backpropagation
        optimizer.step()  # 4. update
    return w.detach()


def show_optimizers(lesson: Lesson) -> None:
    """1.3 Optimizers: SGD follows the gradient, Adam gives every weight its own pace

    A loss L = w_1^2 / 2 + w_2^2 / 2000, a valley: along w_1 a thousand times steeper
    than along w_2. From (1, 1) both optimizers go forty steps, with a rate of 0.1.
    """
    lesson.begin(show_optimizers)
    sgd = adam = torch.ones(2)
    m = v = torch.zeros(2)
    path: dict[str, list[Any]] = {"SGD, w_1": [1], "SGD, w_2": [1], "Adam, both": [1]}
    for t in range(1, 41):
        # SGD: w <- w - rate g; the gradient g of this loss is STEEPNESS w
        sgd = sgd - 0.1 * (STEEPNESS * sgd)

        # Adam (Kingma and Ba 2015) follows m, a running mean of g, and v, one of g^2:
        # m <- 0.9 m + 0.1 g,   v <- 0.999 v + 0.001 g^2
        g = STEEPNESS * adam
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        # m starts at 0: after one step it is 0.1 g, and that divided by 1 - 0.9 is g.
        # After t steps the weights of all g in it add up to 1 - 0.9^t. v likewise
        m_raised = m / (1 - 0.9**t)
        v_raised = v / (1 - 0.999**t)
        # w <- w - rate m / (sqrt(v) + 1e-8): if g stays the same, m / sqrt(v) is 1 or
        # -1, so a step is about as long as the rate, however small g is
        adam = adam - 0.1 * m_raised / (v_raised.sqrt() + 1e-8)

        path["SGD, w_1"].append(sgd[0].item())
        path["SGD, w_2"].append(sgd[1].item())
        path["Adam, both"].append(adam[1].item())

    title = "Down a valley (Adam's running mean carries it past 0)"
    lesson.plot(title, path, "step", "weight")
    theirs = [with_pytorch(torch.optim.SGD), with_pytorch(torch.optim.Adam)]
    lesson.same("By hand as in PyTorch: w after 40 steps", [sgd, adam], theirs)
    told = f"SGD gets to w = ({sgd[0]:.3f}, {sgd[1]:.3f}), Adam, alike along both "
    told += f"axes, to ({adam[0]:.3f}, {adam[1]:.3f})"
    alike = abs(adam[0] - adam[1]) < 0.01
    lesson.shows(told, alike and sgd[0] < 0.05 and sgd[1] > 0.9)
    told = "SGD's loss is lower, as w_2 counts little; for w_2 itself it would need "
    lesson.say(f"{told}1,000 times the steps.")


def show_outputs(lesson: Lesson) -> None:
    """1.4 Outputs and losses: softmax for classes, Sigmoid for yes or no, plain numbers

    Three classes get scores; the second is right. Which probabilities, which loss?
    """
    lesson.begin(show_outputs)
    z = torch.tensor([1.0, 2.0, -1.0])  # scores, also called logits
    # softmax: p_i = e^(z_i) / (e^(z_1) + e^(z_2) + e^(z_3)): positive, and together 1
    p = z.exp() / z.exp().sum()
    # cross-entropy: L = -log(p of the right class): 0 if it is sure and right
    cross_entropy = -p[1].log()
    # with two classes softmax is a Sigmoid, if one divides by e^(z_1):
    # e^(z_1) / (e^(z_1) + e^(z_2)) = 1 / (1 + e^-(z_1 - z_2))
    yes = 1 / (1 + torch.exp(-(z[0] - z[1])))
    # a plain number (regression): mean squared error = mean of (prediction - target)^2
    target = torch.tensor([1.5, 2.0, 0.0])
    squared = ((z - target) ** 2).mean()

    rows = {"score z": z, "e^z": z.exp(), "probability": p}
    lesson.table("", ["first", "second", "third"], rows)
    told = f"The loss is -log {p[1]:.3f} = {cross_entropy:.3f}. Between the first two "
    lesson.say(f"{told}alone: Sigmoid(1 - 2) = Sigmoid(-1) = {yes:.2f}.")
    told = "As plain numbers, if 1.5, 2 and 0 were right, their mean squared error is "
    lesson.say(f"{told}{squared:.2f}.")
    ours = [p, cross_entropy, yes, squared]
    # PyTorch's cross-entropy takes the scores: softmax is inside it
    entropy = F.cross_entropy(z, torch.tensor(1))
    theirs = [z.softmax(0), entropy, z[:2].softmax(0)[0], F.mse_loss(z, target)]
    name = "By hand as in PyTorch: softmax, cross-entropy, Sigmoid, mean squared error"
    lesson.same(name, ours, theirs)


# From here on PyTorch keeps the weights, in an nn.Module, and finds the gradients.


class Data(NamedTuple):
    """Examples x with what is right, y, to learn from; and others, to test with."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


Batch = tuple[Tensor, Tensor]  # inputs x [B, ...] and right classes y, [B] or [B, T]


def shuffled(data: Data, rows: int = 128) -> Iterator[Batch]:
    """Batches without end: of five examples and rows=2, say, 2, 2, 1, then 2, 2, 1 ...

    After `batches = shuffled(data)`, `x, y = next(batches)` takes one: the function
    runs on to the next `yield`, hands out what stands there, and waits.
    """
    while True:
        order = torch.randperm(len(data.x))  # a random order: 3 1 4 0 2, say
        for chosen in order.split(rows):  # parts of so many
            yield data.x[chosen], data.y[chosen]


def train(
    lesson: Lesson,
    model: nn.Module,
    batches: Iterator[Batch],
    steps: int,
    rate: float,
    look: Callable[[], None] | None = None,
) -> tuple[list[float], float]:
    """The one training loop, as in 1.3: the loss of every step, the seconds it took.

    The model gives logits [B, C], C scores for each example, or [B, T, C] if it answers
    at each of T places (section 4). look, a function or None, is called every 50 steps.
    """
    steps = 10 if lesson.quick else steps
    # Adam, with a rate that rises and falls, and no gradient longer than 1 (section 7)
    optimizer = short_training(model.to(lesson.device), steps, rate)
    began = time.perf_counter()
    losses = []

    for step in tqdm(range(steps), lesson.row, leave=False, disable=None):  # a bar
        if look and step % 50 == 0:
            look()
        model.train()  # switches on what only a training needs (dropout, in others)
        x, y = next(batches)
        # 1. forward pass. cross_entropy wants one row of scores for each answer, so
        # flatten(0, -2) joins all axes but the last: [2, 3, 5] becomes [6, 5], and a
        # [6, 5] stays as it is
        logits = model(x).flatten(0, -2)
        loss = F.cross_entropy(logits, y.flatten())  # 2. loss
        optimizer.zero_grad()
        loss.backward()  # 3. backpropagation
        optimizer.step()  # 4. update
        losses.append(loss.item())
    return losses, time.perf_counter() - began


@torch.no_grad()  # no gradients are needed: that saves time and memory
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The model's output for all of x, 250 examples at a time."""
    model.eval()  # switches off what only a training needs
    return torch.cat([model(part) for part in x.split(250)])


def percent(said: Tensor, true: Tensor) -> float:
    """How often two answers agree, in %."""
    return 100 * (said == true).float().mean().item()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The percentage of examples whose likeliest class is the right one."""
    return percent(predict(model, x).argmax(-1), y)  # argmax: where the largest stands


def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The mean cross-entropy of all examples, and of all their places."""
    losses = []
    for part, right in zip(x.split(100), y.split(100), strict=True):  # saves memory
        logits = predict(model, part).flatten(0, -2)
        # reduction="none": of each place, not their mean
        losses.append(F.cross_entropy(logits, right.flatten(), reduction="none"))
    return torch.cat(losses).mean().item()


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns: all weights and biases."""
    return sum(weights.numel() for weights in model.parameters())


# %% 2. Multilayer perceptron (MLP)


def build_mlp(*sizes: int, f: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """An MLP: x [B, ...] is laid flat, then goes through layers y = f(W x + b).

    *sizes takes any number of sizes: build_mlp(16, 256, 26) has 16 inputs, 256 hidden
    neurons, and 26 outputs, which are scores and need no f. (With one output it would
    predict a number: regression.)
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):  # (16, 256), (256, 26)
        layers.append(nn.Linear(inputs, outputs))
        layers.append(f())
    layers.pop()  # no f after the last layer
    return nn.Sequential(*layers)


def show_layers(lesson: Lesson) -> None:
    """2.1 Every neuron is connected to each of the next layer, with an f between

    16 inputs, then 256, 256, 26 neurons: how many weights and biases? What is left
    without f?
    """
    lesson.begin(show_layers)
    mlp = build_mlp(16, 256, 256, 26, f=nn.Identity)  # Identity: f(z) = z, so none
    # (inputs + 1) x outputs in each layer: a weight for every input, and a bias
    counts = [(16 + 1) * 256, (256 + 1) * 256, (256 + 1) * 26]
    told = " + ".join(f"{count:,}" for count in counts)
    name = f"{told} = {sum(counts):,} parameters"
    lesson.same(name, sum(counts), parameters(mlp))

    # W3 (W2 (W1 x + b1) + b2) + b3 = (W3 W2 W1) x + (W3 (W2 b1 + b2) + b3): one layer
    w1, b1, w2, b2, w3, b3 = mlp.parameters()
    w = w3 @ w2 @ w1
    b = w3 @ (w2 @ b1 + b2) + b3
    x = torch.randn(100, 16)
    lesson.same("Without f, three layers are one linear layer", x @ w.T + b, mlp(x))


def show_letters(lesson: Lesson) -> None:
    """2.2 More data, fewer mistakes; few data are learned by heart (overfitting)

    16 numbers describe a printed letter: its width, its height, how much of it is ink
    ... Which one is it? An MLP, a linear model (without hidden layers) and the nearest
    neighbour (the most similar letter seen) learn from more and more letters.
    """
    lesson.begin(show_letters, full=True)
    data = load_letters(lesson.device)
    right: dict[str, list[float]] = defaultdict(list)  # whose lists begin empty
    n = len(data.x)
    sizes = [n // 64, n // 8, n]
    for size in sizes:
        part = data._replace(x=data.x[:size], y=data.y[:size])  # fewer to learn from
        models = {"MLP": build_mlp(16, 256, 256, 26), "linear": build_mlp(16, 26)}
        for name, model in models.items():
            batches = shuffled(part, rows=512)
            _, seconds = train(lesson, model, batches, steps=350, rate=0.025)
            right[f"{name}, letters learned"].append(accuracy(model, part.x, part.y))
            new = accuracy(model, data.x_test, data.y_test)
            right[f"{name}, new letters"].append(new)
            lesson.keep(f"letters: {name}", model, f"{size:,} letters", seconds, new)

        distances = torch.cdist(data.x_test, part.x)  # from each to each: [4000, size]
        nearest = distances.argmin(1)  # for each new letter, which is nearest: [4000]
        right["nearest neighbour, new"].append(percent(part.y[nearest], data.y_test))

    lesson.table("% correct", [f"from {size:,}" for size in sizes], right)
    best = right["MLP, new letters"][-1]
    lead = best - right["linear, new letters"][-1]
    told = f"With {n:,} letters the MLP reads {best:.1f} % of new ones, {lead:.0f} "
    lesson.shows(f"{told}points more than a linear model", best >= 97 and lead >= 15)

    known = right["MLP, letters learned"][0]
    new = right["MLP, new letters"][0]
    linear = [right["linear, letters learned"][0], right["linear, new letters"][0]]
    told = f"Of {n // 64} learned the MLP reads {known:.0f} %, of new ones {new:.0f} "
    told += f"(linear {linear[0]:.0f} and {linear[1]:.0f}): too few data"
    overfits = known == 100 and new <= 70 and linear[0] - linear[1] >= 30
    lesson.shows(told, overfits)
    overfit(lesson, data._replace(x=data.x[: n // 64], y=data.y[: n // 64]))


def overfit(lesson: Lesson, few: Data) -> None:
    """The rest of 2.2: the losses while an MLP learns few letters by heart."""
    mlp = build_mlp(16, 256, 256, 26)
    losses: dict[str, list[float]] = {"letters learned": [], "new letters": []}

    def look() -> None:
        losses["letters learned"].append(mean_loss(mlp, few.x, few.y))
        losses["new letters"].append(mean_loss(mlp, few.x_test, few.y_test))

    train(lesson, mlp, shuffled(few), steps=350, rate=0.0015, look=look)
    title = f"An MLP learns {len(few.x)} letters by heart"
    lesson.plot(title, losses, "step", "loss", range(0, 350, 50))
    known = losses["letters learned"][-1]
    least = min(losses["new letters"])
    last = losses["new letters"][-1]
    told = f"Trained slowly, its loss on these falls to {known:.3f}, on new ones to "
    lesson.shows(f"{told}{least:.2f}, then rises to {last:.2f}", last > 1.5 * least)
    lesson.say("(It still reads as many new letters, but is too sure where it errs.)")


def demo_mlp(lesson: Lesson | None = None) -> Lesson:
    """Sections 1 and 2: how a network learns, and how an MLP reads printed letters."""
    lesson = lesson or Lesson()
    lesson.say("1. How a network learns", "h2")
    show_neuron(lesson)
    show_learning(lesson)
    show_optimizers(lesson)
    show_outputs(lesson)
    lesson.say("2. MLP: the multilayer perceptron", "h2")
    show_layers(lesson)
    show_letters(lesson)
    return lesson


# %% 3. Convolutional neural network (CNN)


def build_cnn() -> nn.Sequential:
    """[Conv -> ReLU -> Pool] x 2 -> Flatten -> Dense -> Output, roughly LeNet (1998).

    Images [B, 1, 28, 28] -> logits [B, 10]. Its stages have names: cnn.block1 ...
    """
    block1 = nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=5),  # 16 filters of 5 x 5: [B, 16, 24, 24]
        nn.ReLU(),
        nn.MaxPool2d(2),  # the largest of each 2 x 2: [B, 16, 12, 12]
    )
    block2 = nn.Sequential(
        nn.Conv2d(16, 64, kernel_size=5),  # [B, 64, 8, 8]
        nn.ReLU(),
        nn.MaxPool2d(2),  # [B, 64, 4, 4]
    )
    # Flatten: [B, 1024], as 64 x 4 x 4 = 1024; then 128 neurons: [B, 128]
    dense = nn.Sequential(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU())
    stages: dict[str, nn.Module] = {"block1": block1, "block2": block2}
    stages |= {"dense": dense, "output": nn.Linear(128, 10)}
    cnn = nn.Sequential(OrderedDict(stages))  # one after the other, with their names
    # for speed: in memory, a pixel's channels stand side by side (nothing else changes)
    return cnn.to(memory_format=torch.channels_last)


def convolve(image: Tensor, weight: Tensor, bias: Any = 0, stride: int = 1) -> Tensor:
    """A filter, weight [C, k, k], slides over an image [C, H, W]: its feature map."""
    k = weight.shape[-1]
    rows = range(0, image.shape[1] - k + 1, stride)
    columns = range(0, image.shape[2] - k + 1, stride)
    feature_map = torch.zeros(len(rows), len(columns))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch = image[:, top : top + k, left : left + k]  # [C, k, k]
            # its answer here: the sum of value x weight over the patch, + bias
            feature_map[i, j] = (patch * weight).sum() + bias
    return feature_map


def pool(image: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """[H, W] -> [H / 2, W / 2]: one number, by f, of each 2 x 2."""
    pooled = torch.zeros(image.shape[0] // 2, image.shape[1] // 2)
    for i in range(pooled.shape[0]):
        for j in range(pooled.shape[1]):
            pooled[i, j] = f(image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2])
    return pooled


def show_convolution(lesson: Lesson) -> None:
    """3.1 Convolution: one small filter slides over the whole image

    A filter is a few weights. With -1 0 1 in each of three rows it answers to vertical
    edges, where ink begins; turned, to horizontal ones. Pooling: the largest of 2 x 2.
    """
    lesson.begin(show_convolution)
    digit = load_mnist(lesson.device, lesson.quick).x_test[0].cpu()  # [1, 28, 28]
    vertical = torch.tensor([[[-1.0, 0.0, 1.0]] * 3])  # [1, 3, 3]: one channel, grey
    horizontal = vertical.transpose(1, 2)  # its rows are -1 -1 -1, 0 0 0, 1 1 1
    filters = torch.stack([vertical, horizontal])  # [2, 1, 3, 3]
    maps = torch.stack([convolve(digit, weight) for weight in filters])  # [2, 26, 26]
    pooled = torch.stack([pool(image, torch.max) for image in maps])  # [2, 13, 13]
    means = torch.stack([pool(image, torch.mean) for image in maps])
    # padding 1: a border of zeros, one wide; stride 2: only at every other place
    padded = F.pad(digit, (1, 1, 1, 1))  # one more at the left, right, top, bottom
    fewer = [convolve(padded, weight, bias=0.5, stride=2) for weight in filters]
    strided = torch.stack(fewer)  # [2, 14, 14]

    tiles = [digit[0], maps[0], pooled[0], maps[1], pooled[1]]
    light = [tile.relu() / tile.max() for tile in tiles]  # ReLU, and 1 at most
    captions = ["digit", "vertical edges", "pooled", "horizontal edges", "pooled"]
    lesson.picture("Where two filters answer, after ReLU", light, captions, columns=5)
    theirs = [F.conv2d(digit, filters), F.max_pool2d(maps, 2), F.avg_pool2d(maps, 2)]
    biases = torch.tensor([0.5, 0.5])
    theirs.append(F.conv2d(digit, filters, biases, stride=2, padding=1))
    name = "By hand as in PyTorch: filters, max and average pooling, padding, stride"
    lesson.same(name, [maps, pooled, means, strided], theirs)

    # the filter's left edge can stand at 0, stride, 2 stride ... n + 2 padding - k, so
    # size = (n + 2 padding - k) / stride + 1, rounded down; here n = 28, k = 3
    size = (28 + 2 * 1 - 3) // 2 + 1
    name = f"With padding 1 and stride 2, a 3 x 3 filter turns 28 x 28 into {size} x "
    lesson.same(f"{name}{size}", [2, size, size], list(strided.shape))
    # every place shares the same 5 x 5 weights and a bias, for each of the 16 maps
    shared = (5 * 5 + 1) * 16
    dense = (28 * 28 + 1) * 16 * 24 * 24  # fully connected, with as many outputs
    name = f"16 filters of 5 x 5 have {shared} parameters; a dense layer with as many "
    layers = [nn.Conv2d(1, 16, 5), nn.Linear(28 * 28, 16 * 24 * 24)]
    counted = [parameters(layer) for layer in layers]
    lesson.same(f"{name}outputs, {dense:,}", [shared, dense], counted)


def show_digits(lesson: Lesson) -> tuple[nn.Sequential, nn.Sequential]:
    """3.2 A CNN is made for images: which digit did somebody write?

    A linear model, an MLP, and a CNN with about as many parameters as the MLP learn, in
    750 steps, from MNIST's 60,000 digits. The test: 10,000 digits by other people.
    """
    lesson.begin(show_digits, full=True)
    data = load_mnist(lesson.device, lesson.quick)
    mlp = build_mlp(784, 165, 165, 10)
    cnn = build_cnn()
    losses, right, seconds = {}, {}, {}
    for name, model in {"linear": build_mlp(784, 10), "MLP": mlp, "CNN": cnn}.items():
        batches = shuffled(data)
        every, seconds[name] = train(lesson, model, batches, steps=750, rate=0.006)
        losses[name] = [part.mean().item() for part in torch.tensor(every).split(25)]
        right[name] = accuracy(model, data.x_test, data.y_test)
        learned = f"{len(data.x):,} digits"
        lesson.keep(f"digits: {name}", model, learned, seconds[name], right[name])

    lesson.models["CNN"] = cnn  # a short name, for the prompt
    title = "The loss in training, mean of 25 batches"
    lesson.plot(title, losses, "step", "loss", range(0, 750, 25), log=True)
    draw_mistakes(lesson, cnn, data)
    digit, sure = read_digit(cnn, DATA / "pictures" / "seven.png")
    lesson.say(f"In data/pictures/seven.png the CNN sees a {digit}, {sure:.0f} % sure.")
    times = seconds["CNN"] / seconds["MLP"]
    told = f"New digits read: linear {right['linear']:.1f} %, MLP {right['MLP']:.1f} "
    told += f"%, CNN {right['CNN']:.2f} % (in {times:.0f} times the MLP's time)"
    best = right["CNN"] >= 99 and right["CNN"] > right["MLP"] > right["linear"]
    lesson.shows(told, best)
    return cnn, mlp


def draw_mistakes(lesson: Lesson, cnn: nn.Module, data: Data) -> None:
    """Draw the test digits that a CNN reads wrongly, the surest mistakes first."""
    p = predict(cnn, data.x_test).softmax(-1)  # [10000, 10]
    sure, said = p.max(-1)  # of each row the largest, and where it stands
    sure[said == data.y_test] = 0  # where it is right there is no mistake
    worst = sure.argsort(descending=True)[:12]
    captions = []
    for i in worst.tolist():
        told = f"is {data.y_test[i]}, said {said[i]}\n{100 * sure[i]:.0f} % sure"
        captions.append(told)
    images = data.x_test[worst, 0]  # [12, 28, 28]: of these, the only channel
    lesson.picture("The CNN's surest mistakes", images, captions, columns=6)


def shift_right(images: Tensor, pixels: int) -> Tensor:
    """Images [..., H, W], moved to the right (-1: left), with blank columns behind.

    F.pad with (2, -2): two columns more at the left, two fewer at the right.
    """
    return F.pad(images, (pixels, -pixels), value=images.min().item())


def show_shift(lesson: Lesson, cnn: nn.Sequential, mlp: nn.Sequential) -> None:
    """3.3 The same pattern is detected wherever it appears

    In training, digits stand in the middle. Now 2,000 new ones move right. How many are
    still read? (In both models, dense layers are tied to places, so both will suffer.)
    """
    lesson.begin(show_shift, full=True)
    data = load_mnist(lesson.device, lesson.quick)
    x, y = data.x_test[:2_000], data.y_test[:2_000]
    right: dict[str, list[float]] = {"CNN": [], "MLP": []}
    for pixels in range(5):
        moved = shift_right(x, pixels)
        right["CNN"].append(accuracy(cnn, moved, y))
        right["MLP"].append(accuracy(mlp, moved, y))

    lesson.plot("Digits read after a move", right, "pixels to the right", "% correct")
    filters = cnn.get_submodule("block1.0")  # the 16 filters of block 1
    still = predict(filters, x[:100])  # [100, 16, 24, 24]
    moved = predict(filters, shift_right(x[:100], pixels=1))
    # column j + 1 of moved is column j of still ("...": all of the axes before)
    name = "If a digit moves by a pixel, so do the first filters' maps, unchanged "
    lesson.same(f"{name}(equivariance)", moved[..., 1:], still[..., :-1])
    by_cnn = right["CNN"][2]
    by_mlp = right["MLP"][2]
    told = f"Moved by two pixels, the CNN reads {by_cnn:.1f} %, the MLP, trained for "
    told += f"as many steps, {by_mlp:.1f} %"
    lesson.shows(told, by_cnn > by_mlp + 8)


def show_shuffled(lesson: Lesson) -> None:
    """3.4 An MLP has no notion of space; a CNN relies on pixels being neighbours

    All pixels change places, in the same way in every digit. Both models learn from
    7,680 digits as they are, and from the same ones shuffled, in 60 steps.
    """
    lesson.begin(show_shuffled, full=True)
    data = load_mnist(lesson.device, lesson.quick)
    data = data._replace(x=data.x[:7_680], y=data.y[:7_680])
    order = torch.randperm(28 * 28, device=lesson.device)

    def shuffle(images: Tensor) -> Tensor:
        pixels = images.flatten(1)  # [n, 784]
        return pixels[:, order].view_as(images)  # in the new order; [n, 1, 28, 28]

    data = data._replace(x_test=data.x_test[:5_000], y_test=data.y_test[:5_000])
    mixed = data._replace(x=shuffle(data.x), x_test=shuffle(data.x_test))
    right: dict[str, list[float]] = {"CNN": [], "MLP": []}
    for digits in (data, mixed):
        models = {"CNN": build_cnn(), "MLP": build_mlp(784, 165, 165, 10)}
        for name, model in models.items():
            train(lesson, model, shuffled(digits), steps=60, rate=0.006)
            right[name].append(accuracy(model, digits.x_test, digits.y_test))

    lesson.table("% correct", ["as they are", "shuffled"], right)
    cnn_loses = right["CNN"][0] - right["CNN"][1]
    mlp_loses = abs(right["MLP"][0] - right["MLP"][1])
    behind = right["CNN"][1] < right["MLP"][1]
    told = f"After 60 steps shuffling costs the CNN {cnn_loses:.1f} points: it falls "
    lesson.shows(f"{told}behind the MLP", cnn_loses >= 3 and mlp_loses < 1.5 and behind)


def probe(lesson: Lesson, data: Data) -> float:
    """How well a linear model tells the digits from what data.x shows of them, in %."""
    torch.manual_seed(lesson.seed)  # the same start and batches for all
    size = data.x.std()  # made alike for all layers, so that one rate suits them all
    data = data._replace(x=data.x / size, x_test=data.x_test / size)
    linear = build_mlp(data.x[0].numel(), 10)  # numel: how many numbers
    train(lesson, linear, shuffled(data), steps=100, rate=0.01)
    return accuracy(linear, data.x_test, data.y_test)


def show_features(lesson: Lesson, cnn: nn.Sequential) -> None:
    """3.5 The deeper a layer, the more plainly it shows which digit it is

    From the output of each layer a linear model tries to tell the digit. It learns from
    500 of the digits that trained the CNN. An untrained CNN shows what training adds.
    """
    lesson.begin(show_features, full=True)
    data = load_mnist(lesson.device, lesson.quick)
    nets = {"trained CNN": cnn, "untrained CNN": build_cnn().to(lesson.device)}
    right: dict[str, list[float]] = {name: [] for name in nets}
    for name, net in nets.items():
        for depth in range(4):  # net[:depth] is its first stages; net[:0](x) is x
            x = predict(net[:depth], data.x[:500])
            x_test = predict(net[:depth], data.x_test[:2_000])
            seen = Data(x, data.y[:500], x_test, data.y_test[:2_000])
            right[name].append(probe(lesson, seen))

    columns = ["pixels", "block1", "block2", "dense"]
    lesson.table("% correct, from its", columns, right)
    trained = right["trained CNN"]
    untrained = right["untrained CNN"][3]
    rises = trained == sorted(set(trained))  # in order, and no two alike
    told = f"From the dense layer a linear model reads {trained[3]:.0f} % of digits "
    told += f"(pixels: {trained[0]:.0f}, untrained: {untrained:.0f})"
    lesson.shows(told, rises and trained[3] > untrained + 5)
    told = "Random filters help, too; a random dense layer does not. The trained one "
    lesson.say(f"{told}learned to suit a linear layer.")


class Skip(nn.Sequential):
    """A skip connection (He et al. 2016): x <- x + layers(x). So x gets through."""

    def forward(self, x: Tensor) -> Any:
        # super().forward(x): x through its layers, as nn.Sequential does it
        return x + super().forward(x)  # type: ignore[no-untyped-call]


def build_deep(depth: int, block: type[nn.Sequential]) -> nn.Sequential:
    """For letters: `depth` hidden layers of 64 neurons; block: nn.Sequential, or Skip.

    They start as He et al. (2015) propose, with a deviation of sqrt(2 / 64), as 64
    inputs add up and ReLU drops half: so that in plain ones signals neither grow nor
    fade from layer to layer.
    """
    layers: list[nn.Module] = [nn.Linear(16, 64)]
    for _ in range(depth):
        layer = nn.Linear(64, 64)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers.append(block(layer, nn.ReLU()))
    return nn.Sequential(*layers, nn.Linear(64, 26))


def show_depth(lesson: Lesson) -> None:
    """3.6 Depth needs its tricks: with skip connections twenty layers learn faster

    The letters of 2.2, learned in 150 steps by 2 hidden layers, by 20, and by 20 with
    skips: x + layer(x), so a layer only learns what to add to x (as in Add & Norm).
    """
    lesson.begin(show_depth, full=True)
    data = load_letters(lesson.device)
    right = {}
    nets = {"2 layers": build_deep(2, nn.Sequential)}
    nets["20 layers"] = build_deep(20, nn.Sequential)
    nets["20 with skips"] = build_deep(20, Skip)
    for name, net in nets.items():
        train(lesson, net, shuffled(data), steps=150, rate=0.006)
        right[name] = accuracy(net, data.x_test, data.y_test)

    told = ", ".join(f"{name} read {right[name]:.1f} %" for name in right)
    lost = right["2 layers"] - right["20 layers"]
    won = right["20 with skips"] - right["20 layers"]
    lesson.shows(f"Of new letters {told}", lost >= 5 and won >= 8)
    lesson.say("(In ten times the steps the three come to 95 %, 88 % and 97 %.)")


def read_digit(cnn: nn.Module, file: str | Path | Image.Image) -> tuple[int, float]:
    """The digit in a picture, and how sure a CNN is of it, in %.

    OSError: the file is missing, or no picture. ValueError: it shows not one digit.
    """
    x = prepare_digit(file if isinstance(file, Image.Image) else Image.open(file))
    device = next(cnn.parameters()).device  # where its first weights are
    p = predict(cnn, x.to(device)).softmax(-1)[0]  # [10]
    return int(p.argmax()), 100 * p.max().item()


def demo_cnn(lesson: Lesson | None = None) -> Lesson:
    """Section 3: how a CNN reads written digits, and what it owes to its filters."""
    lesson = lesson or Lesson()
    lesson.say("3. CNN: the convolutional network", "h2")
    show_convolution(lesson)
    cnn, mlp = show_digits(lesson)
    show_shift(lesson, cnn, mlp)
    show_shuffled(lesson)
    show_features(lesson, cnn)
    show_depth(lesson)
    return lesson


# %% 4. Recurrent neural networks (RNN) and LSTM


def rnn_by_hand(rnn: nn.RNN, x: Tensor) -> Tensor:
    """An RNN reads x [T, d], step by step: every state h_t, [T, hidden]."""
    w_xh, w_hh, b_x, b_h = rnn.parameters()  # PyTorch has two biases, and adds them
    h = torch.zeros(rnn.hidden_size)
    states = []
    for x_t in x:
        # h_t = tanh(W_hh h_(t-1) + W_xh x_t + b), with the same weights at every step
        h = torch.tanh(w_hh @ h + w_xh @ x_t + b_x + b_h)
        states.append(h)
    return torch.stack(states)


def lstm_by_hand(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM reads x [T, d]: every h_t and f_t, [T, hidden], and the last c_t.

    Hochreiter and Schmidhuber 1997; the forget gate is from Gers et al. 2000.
    """
    # PyTorch keeps the four gates' weights one below the other, as i, f, c, o
    w_x, w_h, b_x, b_h = lstm.parameters()  # [4 hidden, d], [4 hidden, hidden] ...
    # W [h, x] = W_h h + W_x x: W is the two side by side, [4 hidden, hidden + d]
    w = torch.cat([w_h, w_x], dim=1)
    w_i, w_f, w_c, w_o = w.chunk(4)  # four parts: [hidden, hidden + d] each
    b_i, b_f, b_c, b_o = (b_x + b_h).chunk(4)
    h = torch.zeros_like(b_i)
    c = torch.zeros_like(b_i)
    states, kept = [], []

    for x_t in x:
        h_x = torch.cat([h, x_t])
        # f_t = sigmoid(W_f [h_(t-1), x_t] + b_f): how much of c to KEEP, not forget
        f = torch.sigmoid(w_f @ h_x + b_f)
        # i_t = sigmoid(W_i [h_(t-1), x_t] + b_i): how much to take in
        i = torch.sigmoid(w_i @ h_x + b_i)
        # c~_t = tanh(W_c [h_(t-1), x_t] + b_c): of what
        c_new = torch.tanh(w_c @ h_x + b_c)
        # c_t = f_t * c_(t-1) + i_t * c~_t
        c = f * c + i * c_new
        # o_t = sigmoid(W_o [h_(t-1), x_t] + b_o): how much to give out
        o = torch.sigmoid(w_o @ h_x + b_o)
        # h_t = o_t * tanh(c_t)
        h = o * torch.tanh(c)
        states.append(h)
        kept.append(f)
    return torch.stack(states), torch.stack(kept), c


def show_steps(lesson: Lesson) -> None:
    """4.1 An RNN hands a state on from step to step; an LSTM has gates for its memory

    Both, untrained, read the same six steps, of three numbers each. Here is the first
    number of each state and of the forget gate: 1 keeps all of the memory, 0 erases it.
    """
    lesson.begin(show_steps)
    x = torch.randn(6, 3)
    rnn = nn.RNN(3, 5)
    lstm = nn.LSTM(3, 5)
    states = rnn_by_hand(rnn, x)  # [6, 5]
    h, f, c = lstm_by_hand(lstm, x)
    rows = {"RNN, h_t": states[:, 0], "LSTM, h_t": h[:, 0], "LSTM, f_t": f[:, 0]}
    lesson.table("", [f"step {t}" for t in range(1, 7)], rows)
    kept = 100 * f[2, 0]
    lesson.say(f"So in step 3 the LSTM keeps {kept:.0f} % of its memory's first part.")

    their_states, _ = rnn(x)
    their_h, (_, their_c) = lstm(x)  # [6, 5]; [1, 5], as there is one layer
    name = "By hand as in PyTorch: all states of the RNN and of the LSTM, its last cell"
    lesson.same(name, [states, h, c], [their_states, their_h, their_c[0]])


def open_forget_gate(lstm: nn.RNNBase) -> nn.RNNBase:
    """Start an LSTM with its forget gate at about Sigmoid(3) = 0.95, nearly open."""
    n = lstm.hidden_size
    bias = lstm.get_parameter("bias_hh_l0")  # PyTorch's name for b_h, of layer 0
    bias.data[n : 2 * n] = 3.0  # of i, f, c, o the second; .data: the bare numbers
    return lstm


def show_gradients(lesson: Lesson) -> None:
    """4.2 Vanishing and exploding gradients: how far back does learning reach?

    Untrained networks read 101 steps. If one step's input changes a little, how much
    does the last output change? That is the gradient there, here divided by the last
    step's. In an RNN each step back multiplies it by W_hh and by tanh's slope, in an
    LSTM's memory by f_t.
    """
    lesson.begin(show_gradients)
    inputs = torch.randn(101, 8, 64)  # 101 steps, of 8 sequences
    networks: dict[str, nn.RNNBase] = {"RNN": nn.RNN(64, 64)}
    networks["RNN, W_hh x 4"] = nn.RNN(64, 64)
    networks["RNN, W_hh x 4"].get_parameter("weight_hh_l0").data *= 4
    networks["LSTM"] = nn.LSTM(64, 64)
    networks["LSTM, open gate"] = open_forget_gate(nn.LSTM(64, 64))

    back, far = {}, {}
    for name, network in networks.items():
        x = inputs.clone().requires_grad_()
        h, _ = network(x)
        h[-1].sum().backward()  # backward needs a single number: the last outputs' sum
        gradient: Any = x.grad  # [101, 8, 64], for the inputs of every step
        sizes = gradient.abs().mean((1, 2))  # their mean size, of each step: [101]
        sizes = sizes.flip(0)  # the last step first
        back[name] = (sizes / sizes[0]).tolist()  # so each curve begins at 1
        far[name] = back[name][100]

    title = "How much gradient comes back (at the last step: 1)"
    lesson.plot(title, back, "steps back", "gradient", log=True)
    told = f"100 steps back, the RNN's has vanished ({far['RNN']:.0e}); with W_hh "
    told += f"times 4 it explodes ({far['RNN, W_hh x 4']:.0e})"
    lesson.shows(told, far["RNN"] < 1e-6 and far["RNN, W_hh x 4"] > 100)
    wide_open = far["LSTM, open gate"]
    told = f"An LSTM's vanishes, too ({far['LSTM']:.0e}), unless its forget gate is "
    lesson.shows(f"{told}open ({wide_open:.2f})", 10 > wide_open > 0.01 > far["LSTM"])


class Recurrent(nn.Module):
    """Symbols [B, T] -> embedding -> RNN or LSTM -> output: logits [B, T, symbols]."""

    def __init__(self, cell: Any, symbols: int, hidden: int) -> None:
        super().__init__()
        # for each symbol as many learned numbers as there are hidden units
        self.embedding = nn.Embedding(symbols, hidden)
        # cell: nn.RNN or nn.LSTM; batch_first: it takes [B, T, hidden]
        self.cell = cell(hidden, hidden, batch_first=True)
        self.output = nn.Linear(hidden, symbols)

    def forward(self, ids: Tensor) -> Any:
        h, _ = self.cell(self.embedding(ids))  # every h_t: [B, T, hidden]
        return self.output(h)


class LastPlace(nn.Module):
    """Keeps what is said after the last symbol: [B, T, symbols] -> [B, symbols]."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, -1]


def recall_batches(lesson: Lesson, short_first: bool) -> Iterator[Batch]:
    """Random symbols of 8 kinds, [40, T], and the first of each row, [40]: the target.

    T is 100; or, short_first, 2 in the first 20 batches, then 9, then 16 ... 100.
    """
    for step in count():  # 0, 1, 2 ...
        length = min(100, 2 + 7 * (step // 20)) if short_first else 100
        symbols = torch.randint(8, (40, length), device=lesson.device)
        yield symbols, symbols[:, 0]


def learn_recall(
    lesson: Lesson, name: str, model: nn.Module, steps: int, short_first: bool
) -> float:
    """Train a model to say the first of 100 symbols; % correct, on 1,000 new rows."""
    recall = nn.Sequential(model, LastPlace())
    batches = recall_batches(lesson, short_first)
    losses, seconds = train(lesson, recall, batches, steps, rate=0.02)
    symbols = torch.randint(8, (1_000, 100), device=lesson.device)
    right = accuracy(recall, symbols, symbols[:, 0])
    lesson.keep(name, model, f"{40 * len(losses):,} rows", seconds, right)
    return right


def show_memory(lesson: Lesson) -> None:
    """4.3 An LSTM learns to remember, through its gates

    Which was the first of 100 random symbols of 8 kinds? Guessing gets 12.5 %. An RNN
    and an LSTM begin with 2, then 9, 16 ... 100: as PyTorch starts them, no gradient
    (4.2) would get so far.
    """
    lesson.begin(show_memory, full=True)
    rnn = Recurrent(nn.RNN, symbols=8, hidden=64)
    lstm = Recurrent(nn.LSTM, symbols=8, hidden=64)
    lstm.to(lesson.device)  # at once, as its gates are looked at before training
    row = torch.randint(8, (100,), device=lesson.device)
    # how open each unit's forget gate is at each symbol: [100, 64]
    _, untrained, _ = lstm_by_hand(lstm.cell, lstm.embedding(row))
    by_rnn = learn_recall(lesson, "recall: RNN", rnn, steps=300, short_first=True)
    by_lstm = learn_recall(lesson, "recall: LSTM", lstm, steps=300, short_first=True)
    _, trained, _ = lstm_by_hand(lstm.cell, lstm.embedding(row))

    # each step multiplies what is left of c_1 by f_t: c_2 = f_2 c_1 + ..., then c_3 =
    # f_3 f_2 c_1 + ...; in the end the product of all f from f_2 on ([1:]): [64]
    left = trained[1:].prod(0)
    gate = {"mean, untrained": untrained.mean(1).tolist()}
    gate["mean, trained"] = trained.mean(1).tolist()
    gate["most open"] = trained[:, left.argmax()].tolist()  # of the 64
    title = "The LSTM's 64 forget gates"
    lesson.plot(title, gate, "place of the symbol", "f_t (1: keep all)")
    told = f"The LSTM recalls {by_lstm:.1f} % of the symbols, the RNN, trained alike, "
    lesson.shows(f"{told}{by_rnn:.1f} %", by_lstm >= 99 and by_rnn < 30)
    keep_it = (left > 0.5).sum().item()
    before = untrained.mean().item()
    after = trained.mean().item()
    opened = before < 0.6 and after > 0.8 and keep_it >= 5
    told = f"Its forget gates open, mean {before:.2f} to {after:.2f}: {keep_it} "
    lesson.shows(f"{told}of 64 keep half for 99 steps, the rest less", opened)
    told = "(At a rate of 0.005 the LSTM guesses. A ReLU RNN with W_hh = identity at "
    lesson.say(f"{told}first, at 0.003: 100 %.)")


# A tokenizer cuts text into pieces of words, of 3,000 kinds, and numbers them: ids.
# load_pieces (section 7) hands out the novel in ids: its first nine tenths, the last
# one, unseen, and how many characters a piece has on average.


def draw(p: Tensor, top_k: float = 0, top_p: float = 1.0) -> Tensor:
    """A piece, drawn by the pieces' probabilities p [symbols]: its number, [1].

    top_k: only from the so many likeliest (0: from all). top_p: only from the likeliest
    that together have this probability.
    """
    p, pieces = p.sort(descending=True)  # 0.5 0.3 0.15 0.05, say; and their numbers
    if top_k:
        p[math.ceil(top_k) :] = 0  # with top_k=2: 0.5 0.3 0 0
    likelier = p.cumsum(0) - p  # what all before it have together: 0 0.5 0.8 0.95
    p[likelier >= top_p] = 0  # with top_p=0.7 (and no top_k): 0.5 0.3 0 0
    # a place, 0 with probability 0.5 / (0.5 + 0.3), say, and 1 with 0.3 / (0.5 + 0.3)
    place = torch.multinomial(p, num_samples=1)
    return pieces[place]


def generate(
    model: nn.Module, ids: Tensor, length: int, temperature: float = 1.0, **how: float
) -> Tensor:
    """Let a model go on with ids [1, T]: it draws a piece, reads that, too, and so on.

    temperature: below 1 it makes what is likely likelier. how: top_k, top_p of `draw`.
    """
    for _ in range(length):
        logits = predict(model, ids)[0, -1]  # of what may come next: [symbols]
        p = (logits / temperature).softmax(-1)
        ids = torch.cat([ids, draw(p, **how).view(1, 1)], dim=1)
    return ids


def learn_novel(lesson: Lesson, name: str, model: nn.Module, rate: float) -> float:
    """Train a model to predict the novel's next piece: how many bits a character?"""
    seen, unseen, letters = load_pieces(lesson.quick)
    # of 1 2 3 4 5, unfold(0, 3, 1) makes the rows 1 2 3, 2 3 4, 3 4 5; unfold(0, 3, 2)
    # 1 2 3 and 3 4 5. Here they are 17 long, [n, 17]: the first 16 are x, and the last
    # 16 y, what follows each
    rows = torch.tensor(seen, device=lesson.device).unfold(0, 17, 1)
    # pieces 0 to 16, 16 to 32 ...: so each is predicted once (16: a target, then an x)
    tests = torch.tensor(unseen, device=lesson.device).unfold(0, 17, 16)
    x = tests[:, :-1]
    y = tests[:, 1:]
    # the loss is the mean of -log p of the pieces that came: 4.4, say
    # 4.4 / log 2 = 6.3 bits a piece, as -log2 p = -log p / log 2
    # 6.3 / 3.8 characters of a piece = 1.7 bits a character
    scale = 1 / (math.log(2) * letters)
    curve: list[float] = []  # during the training

    def look() -> None:
        curve.append(scale * mean_loss(model, x[::2], y[::2]))  # on every second row

    batches = shuffled(Data(rows[:, :-1], rows[:, 1:], x, y), rows=64)
    _, seconds = train(lesson, model, batches, steps=375, rate=rate, look=look)
    look()  # at the end, too
    bits = scale * mean_loss(model, x, y)
    learned = f"{len(seen):,} pieces"
    lesson.keep(f"novel: {name}", model, learned, seconds, "", bits)
    lesson.scores[f"novel: {name}"]["curve"] = curve  # for 5.3

    start = load_tokenizer().encode("Elizabeth").ids
    ids = torch.tensor([start], device=lesson.device)
    # up to 16 pieces, as the GPT has no more places
    ids = generate(model, ids, length=16 - len(start), temperature=0.7)
    written = load_tokenizer().decode(ids[0].tolist())
    lesson.say(f"The {name} writes: {' '.join(written.split())}")
    return bits


def show_novel(lesson: Lesson) -> None:
    """4.4 An LSTM reads text, and after every step it predicts what comes next

    How many bits (-log2 p: 3 if p = 1/8) does a character of Pride and Prejudice's
    unseen tenth cost? Tables count which piece of a word followed the last 0 to 3; the
    LSTM sees up to 16.
    """
    lesson.begin(show_novel, full=True)
    _, unseen, _ = load_pieces(lesson.quick)
    letters = [load_tokenizer().decode([piece]) for piece in unseen[40:60]]
    lesson.say(f"In pieces: {'|'.join(letters)}")

    lstm = Recurrent(nn.LSTM, load_tokenizer().get_vocab_size(), hidden=80)
    # smaller numbers than PyTorch's at first: a short training changes them sooner
    nn.init.normal_(lstm.embedding.weight, std=0.1)
    bits = learn_novel(lesson, "LSTM", lstm, rate=0.03)
    # if "was" came in 40 of 200 places after "Bennet", and 90 kinds of pieces did, then
    # 90 times it was a new one: that is the weight of the table of one piece fewer, in
    # which "was" has p = q: (40 + 90 q) / (200 + 90). (This is smoothing)
    tables = count_tables(lesson.quick)
    columns = ["table, 0 pieces", "1 piece", "2 pieces", "3 pieces", "LSTM"]
    lesson.table("", columns, {"bits a character": [*tables, bits]})
    told = f"The LSTM needs {bits:.2f} bits a character, the table of one piece "
    lesson.shows(f"{told}{tables[1]:.2f} (of two: {tables[2]:.2f})", bits < tables[1])
    told = f"Against the best table: {bits - min(tables):+.2f}. Of threes most are "
    lesson.say(f"{told}new, the others too rare to be trusted.")


def demo_lstm(lesson: Lesson | None = None) -> Lesson:
    """Section 4: networks that read step by step, remember, and write."""
    lesson = lesson or Lesson()
    lesson.say("4. RNN and LSTM: networks that read step by step", "h2")
    show_steps(lesson)
    show_gradients(lesson)
    show_memory(lesson)
    show_novel(lesson)
    return lesson


# %% 5. Transformers: GPT and BERT


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v (Vaswani et al. 2017): weighted means of values v.

    q [..., T, d_k]; k, v [..., S, d_k], S places -> [..., T, d_k]. causal: none looks
    ahead.
    """
    # without the root, scores of long vectors would be large: softmax would pick one
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])  # [..., T, S]
    if causal:
        future = torch.ones_like(scores).triu(1).bool()  # True above the diagonal
        scores = scores.masked_fill(future, -math.inf)  # which softmax makes 0
    return scores.softmax(-1) @ v


class Block(nn.Module):
    """A Transformer block, x [B, T, width] -> the same: attention, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Norm: each place gets mean 0 and deviation 1, then a weight and a bias
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)  # W_Q, W_K, W_V in one
        self.mix = nn.Linear(width, width)  # W_O
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Any:
        # (Norm comes first, as in GPT-2; in BERT and in 2017's Transformer after Add.)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)  # three parts: [B, T, 64]
        # each head attends for itself: of a width of 64, say, each of four heads has 16
        # numbers of q, k and v, as if from a W_Q, W_K and W_V of its own
        n = x.shape[-1] // self.heads
        heads = []
        for start in range(0, x.shape[-1], n):
            own = slice(start, start + n)  # columns 0 to 15, then 16 to 31 ...
            heads.append(attention(q[..., own], k[..., own], v[..., own], causal=True))
        # side by side, what they find is [B, T, 64]: x <- x + W_O [head_1 ... head_4]
        x = x + self.mix(torch.cat(heads, dim=-1))
        # feed-forward: x <- x + W_2 gelu(W_1 Norm(x)); gelu is a smooth ReLU
        hidden = F.gelu(self.up(self.norm2(x)), approximate="tanh")  # [B, T, 4 x 64]
        return x + self.down(hidden)


class GPT(nn.Module):
    """GPT, built as GPT-2 (Radford et al. 2019): which symbol follows at each place?

    ids [B, T] -> logits [B, T, symbols]. (GPT-2 has dropout, too, and the same matrix
    for token and output.)
    """

    def __init__(
        self, symbols: int, positions: int, width: int, heads: int, depth: int
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(symbols, width)  # what stands here
        self.position = nn.Embedding(positions, width)  # and where: positional encoding
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, symbols, bias=False)
        nn.init.normal_(self.token.weight, std=0.1)  # small, as in 4.4
        nn.init.normal_(self.position.weight, std=0.1)

    def forward(self, ids: Tensor) -> Any:
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # [B, T, width]
        return self.output(self.norm(self.blocks(x)))

    @classmethod  # called as GPT.with_weights_of(model); cls is GPT
    def with_weights_of(cls, library: Any) -> GPT:
        """This class with the weights of the library's GPT2LMHeadModel, of any size."""
        c = library.config
        gpt = cls(c.vocab_size, c.n_positions, c.n_embd, c.n_head, c.n_layer)
        # gpt2_weights (section 7) hands out the library's in the order of ours: token,
        # position, block by block, norm, output
        for ours, theirs in zip(gpt.parameters(), gpt2_weights(library), strict=True):
            ours.data.copy_(theirs)  # its numbers into ours
        return gpt.to(library.device).eval().requires_grad_(False)


def show_attention(lesson: Lesson) -> None:
    """5.1 Attention: every place looks at all places, and takes a weighted mean of them

    Four words with random vectors: how much does each take of every other? On the right
    with the causal mask: no word looks ahead.
    """
    lesson.begin(show_attention)
    words = ["the", "dog", "bit", "me"]
    x = torch.randn(4, 16)  # a vector for each word
    w_q, w_k, w_v = torch.randn(3, 16, 16) / 4
    q, k, v = x @ w_q, x @ w_k, x @ w_v  # query, key and value of each word: [4, 16]

    # weights @ identity = weights: with the identity for values, one sees them: [4, 4]
    free = attention(q, k, torch.eye(4))
    masked = attention(q, k, torch.eye(4), causal=True)
    rows = {words[n]: [*free[n], "", *masked[n]] for n in range(4)}
    lesson.table("looks at", [*words, "", *words], rows)

    far = torch.randn(9, 16)  # cross-attention: keys and values are from another text
    ours = [attention(q, k, v), attention(q, k, v, causal=True), attention(q, far, far)]
    library = F.scaled_dot_product_attention
    theirs = [library(q, k, v), library(q, k, v, is_causal=True), library(q, far, far)]
    name = "By hand as in PyTorch: attention, causal attention, cross-attention"
    lesson.same(name, ours, theirs)


def show_recall(lesson: Lesson) -> None:
    """5.2 A Transformer looks straight back; an LSTM has to carry the past along

    4.3's question: which was the first of 100 symbols? Now a GPT of one block with one
    head and an LSTM learn it in 200 steps, without the short ones that helped in 4.3.
    """
    lesson.begin(show_recall, full=True)
    gpt = GPT(symbols=8, positions=100, width=32, heads=1, depth=1)
    lstm = Recurrent(nn.LSTM, symbols=8, hidden=64)
    by_gpt = learn_recall(lesson, "at once: GPT", gpt, steps=200, short_first=False)
    by_lstm = learn_recall(lesson, "at once: LSTM", lstm, steps=200, short_first=False)
    told = f"The GPT recalls {by_gpt:.1f} %; the LSTM still guesses, {by_lstm:.1f} %"
    lesson.shows(told, by_gpt >= 99 and by_lstm < 30)


def show_gpt(lesson: Lesson) -> None:
    """5.3 A GPT is trained to predict the next piece, and so learns to write

    A GPT like 5.2's, but 64 wide with four heads, learns 4.4's novel in as many steps
    as the LSTM: from up to 16 pieces it predicts the next one, of 3,000.
    """
    lesson.begin(show_gpt, full=True)
    symbols = load_tokenizer().get_vocab_size()  # 3,000
    gpt = GPT(symbols, positions=16, width=64, heads=4, depth=1)
    bits = learn_novel(lesson, "GPT", gpt, rate=0.02)
    best = min(count_tables(lesson.quick))

    told = f"The GPT needs {bits:.2f} bits a character, 4.4's best table {best:.2f}"
    # from step 100 on: before it, the curves fall too steeply to tell them apart
    curves = {"GPT": lesson.scores["novel: GPT"]["curve"][2:]}
    if "novel: LSTM" in lesson.scores:  # if section 4 was run, too
        lstm = lesson.scores["novel: LSTM"]
        curves["LSTM"] = lstm["curve"][2:]
        told += f", the LSTM {lstm['bits a character']:.2f}"
    title = "Learning from Pride and Prejudice"
    curves["best table"] = [best] * len(curves["GPT"])
    up = "bits a character, on every second unseen row"
    steps = [*range(100, 375, 50), 375]
    lesson.plot(title, curves, "step of training", up, steps)
    lesson.shows(told, bits < best)
    # with Kneser and Ney's smoothing (1995): tests/controls.py
    lesson.say("(Better counting: 1.61. A novel and 375 steps are little for a GPT.)")


def show_gpt2(lesson: Lesson) -> GPT:
    """5.4 Our GPT, given GPT-2's weights, computes what GPT-2 computes

    If anything in its blocks were not as in GPT-2, other numbers would come out.
    """
    lesson.begin(show_gpt2)
    tokenizer, library = lesson.load("GPT-2")
    gpt = GPT.with_weights_of(library)
    text = load_novel()[1][:800]
    # gpt2-austen's tokenizer is 4.4's (GPT-2 has its own); "pt": into PyTorch's tensors
    ids = tokenizer(text, return_tensors="pt").input_ids.to(lesson.device)  # [1, T]
    # each score is a sum of hundreds of products: in another order, more rounding. So
    # two may differ by 0.001 (atol), whatever their size (rtol 0)
    near = {"atol": 0.001, "rtol": 0.0}
    name = f"With {lesson.called('GPT-2')}'s weights ({library.config.n_layer} blocks, "
    name += f"{library.config.n_head} heads) it scores as Hugging Face's GPT-2 does"
    lesson.same(name, gpt(ids), library(ids).logits, **near)
    return gpt


def show_context(lesson: Lesson, gpt: GPT) -> None:
    """5.5 Every place attends to all earlier ones, and the more there are, the better

    With GPT-2's weights: how many bits does a piece (of several characters) of the
    unseen tenth cost, if the 1, 2, 4, 8 or 16 pieces before it can be seen?
    """
    lesson.begin(show_context)
    tokenizer, _ = lesson.load("GPT-2")
    text = load_novel()[1][: 10_000 if lesson.quick else None]
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids[0]
    # 17 pieces in a row, from every 48th piece on: [windows, 17]
    windows = ids.to(lesson.device).unfold(0, 17, 48)
    last = nn.Sequential(gpt, LastPlace())
    contexts = [1, 2, 4, 8, 16]
    bits = []
    for n in contexts:
        before = windows[:, 16 - n : 16]  # the n pieces before the 17th
        logits = predict(last, before)  # [windows, symbols]
        loss = F.cross_entropy(logits, windows[:, 16])
        bits.append(loss.item() / math.log(2))

    curve = {lesson.called("GPT-2"): bits}
    title = "More context, fewer bits"
    lesson.plot(title, curve, "pieces before it", "bits a piece", contexts)
    told = ", ".join(f"{value:.2f}" for value in bits)
    told = f"With 1, 2, 4, 8, 16 pieces before it, a piece costs {told} bits"
    lesson.shows(told, bits == sorted(set(bits), reverse=True))  # each is lower


def show_generation(lesson: Lesson, gpt: GPT) -> None:
    """5.6 Text generation: a piece is chosen, becomes part of the text, and so on

    What does GPT-2 expect next? Then it goes on: greedily (always the likeliest), or by
    drawing: at a temperature (below 1 favours the likely), from the top_k likeliest, or
    from the likeliest that together have top_p.
    """
    lesson.begin(show_generation)
    tokenizer, library = lesson.load("GPT-2")
    text = "Elizabeth looked at her sister, and"
    ids = tokenizer(text, return_tensors="pt").input_ids.to(lesson.device)  # [1, T]
    logits = gpt(ids)[0, -1]  # the scores of all pieces for the next place: [symbols]
    rows = {}
    for piece in logits.topk(4).indices.tolist():  # the four largest
        bars = []
        for temperature in (1, 0.5):
            p = (logits / temperature).softmax(-1)
            share = 100 * p[piece].item()
            bars.append(f"{share:2.0f} % " + "█" * round(share / 3))
        rows[tokenizer.decode([piece])] = bars
    lesson.table("next piece", ["temperature 1", "temperature 0.5"], rows)

    # continue_text, which one can call at the prompt, stands in section 7
    lesson.say(f"Greedy: {continue_text(text, max_new_tokens=9)}")
    written = continue_text(text, temperature=0.8, max_new_tokens=9)
    lesson.say(f"temperature 0.8: {written}")
    lesson.say(f"top_k 20: {continue_text(text, top_k=20, max_new_tokens=9)}")
    lesson.say(f"top_p 0.9: {continue_text(text, top_p=0.9, max_new_tokens=9)}")

    # greedy: x_(t+1) = argmax p(x | x_1 ... x_t)
    by_hand = generate(gpt, ids, length=30, top_k=1)
    # the library's: no drawing, no early end (eos), no padding, all of ids is text
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30}
    how |= {"eos_token_id": None, "pad_token_id": 0}
    theirs = library.generate(ids, attention_mask=torch.ones_like(ids), **how)
    name = "Greedy by hand, with this file's GPT, gives the library's 30 pieces"
    lesson.same(name, by_hand, theirs)


def show_cost(lesson: Lesson) -> None:
    """5.7 Attention costs the square of the length; an LSTM has to wait, step by step

    Attention reads longer and longer sequences of vectors, d = 64 wide, which it takes
    for q, k and v; an LSTM's numbers are by formula. How often do they multiply, and
    how many steps wait in turn?
    """
    lesson.begin(show_cost)
    lengths = [64, 128, 256, 512, 1_024]
    counted = []
    for n in lengths:
        x = torch.randn(n, 64)
        with FlopCounterMode(display=False) as counter:  # PyTorch counts what it does
            attention(x, x, x)
        counted.append(counter.get_total_flops() // 2)  # product and sum count as 2

    rows = {"attention, multiplications": counted}
    # an LSTM's step: four gates with 64 x 64 weights for x_t, and as many for h
    rows["LSTM, n x 8 d^2"] = [n * 4 * 2 * 64 * 64 for n in lengths]
    rows |= {"attention, steps in turn": [1] * 5, "LSTM, steps in turn": lengths}
    lesson.table("length n", lengths, rows)
    # q k^T has n x n scores of d = 64 products each, and weights times v as many
    by_formula = [2 * n * n * 64 for n in lengths]
    name = "Attention multiplies 2 n^2 d times: twice the length, four times the work"
    lesson.same(name, counted, by_formula)
    # 12 n d^2: n d^2 each for W_Q, W_K, W_V, W_O, 4 n d^2 each for the MLP's two layers
    told = "Not counted is the rest of its block, 12 n d^2. When it writes, a GPT goes "
    lesson.say(f"{told}step by step, too.")


def demo_gpt2(lesson: Lesson | None = None) -> Lesson:
    """Section 5: attention, a GPT that is built and trained, GPT-2, which writes."""
    lesson = lesson or Lesson()
    lesson.say("5. Transformers: attention and GPT", "h2")
    show_attention(lesson)
    show_recall(lesson)
    show_gpt(lesson)
    gpt = show_gpt2(lesson)
    show_context(lesson, gpt)
    show_generation(lesson, gpt)
    show_cost(lesson)
    return lesson


def show_sight(lesson: Lesson) -> None:
    """5.8 GPT sees the past only, BERT sees everything

    Each row of the picture shows where the word at its left looks, on average over all
    layers and heads. Then "house" becomes "world": do the scores at the words before it
    change?
    """
    lesson.begin(show_sight)
    text = "She took the note and went into the house."
    maps, words = [], []
    ahead, moved = {}, {}
    for name in ("GPT-2", "BERT"):
        tokenizer, model = lesson.load(name)
        ids = tokenizer(text, return_tensors="pt").input_ids.to(lesson.device)  # [1, T]
        output = model(ids, output_attentions=True)
        # for each layer [1, heads, T, T], so all: [layers, 1, heads, T, T]
        layers = torch.stack(output.attentions)
        maps.append(layers.mean((0, 1, 2)))  # over all but the last two axes: [T, T]
        words.append([tokenizer.decode([piece]).strip() for piece in ids[0].tolist()])
        # above a map's diagonal (triu) is what comes later than the word that looks
        ahead[name] = 100 * (layers.triu(1).sum() / layers.sum()).item()

        swapped = text.replace("house", "world")
        other = tokenizer(swapped, return_tensors="pt").input_ids.to(lesson.device)
        # [1, T, symbols]: the scores, the first thing in a model's output
        change = (model(other)[0] - output[0]).abs()
        house = words[-1].index("house")  # its place
        moved[name] = change[:, :house].max().item()  # at the words before it

    gpt = lesson.called("GPT-2")
    bert = lesson.called("BERT")
    title = "Where the word at the left looks (white: 0 %, darkest: 100 %)"
    lesson.picture(title, maps, [gpt, bert], columns=2, words=words)
    told = f"{ahead['GPT-2']:.0f} % of {gpt}'s attention goes to later places, "
    told += f"{ahead['BERT']:.0f} % of {bert}'s"
    lesson.shows(told, ahead["GPT-2"] == 0 and ahead["BERT"] > 10)
    told = f"The swap changes {gpt}'s scores before it by {moved['GPT-2']:.1f}, "
    past_only = moved["GPT-2"] < 1e-4 and moved["BERT"] > 0.1
    lesson.shows(f"{told}{bert}'s by up to {moved['BERT']:.1f}", past_only)
    # so Clark et al. 2019
    told = f"{100 * maps[1][:, 0].mean():.0f} % of {bert}'s goes to [CLS], put before "
    lesson.say(f"{told}each text: perhaps as all 100 % must go somewhere.")


def show_positions(lesson: Lesson) -> None:
    """5.9 Without a mask, attention knows no order: positions must be put in

    BERT reads "the dog bit the man" and "the man bit the dog", once with all words at
    place 0, once as it should be. How much do the words' vectors differ?
    """
    lesson.begin(show_positions)
    tokenizer, model = lesson.load("BERT")
    one = tokenizer("the dog bit the man", return_tensors="pt").input_ids
    one = one.to(lesson.device)  # [1, 7]
    #  place   0   1   2   3   4   5    6
    #  first [CLS] the dog bit the man [SEP]
    # second [CLS] the man bit the dog [SEP]: dog and man have changed places
    order = [0, 1, 5, 3, 4, 2, 6]
    other = one[:, order]
    change = []
    # model.bert: without the output layer, so vectors instead of scores
    for positions in (torch.zeros_like(one), None):  # None: 0, 1, 2 ...
        first = model.bert(one, position_ids=positions).last_hidden_state  # [1, 7, d]
        second = model.bert(other, position_ids=positions).last_hidden_state
        same_words = first[:, order]  # dog beside dog: place 5's vector at place 2 ...
        change.append((same_words - second).abs().max().item())
    told = f"Without positions they differ by at most {change[0]:.0e}, with them by up "
    lesson.shows(f"{told}to {change[1]:.1f}", change[0] < 1e-4 and change[1] > 0.1)


def fill_mask(text: str) -> dict[str, float]:
    """BERT's five likeliest words for the [MASK] in a text, and their probability in %.

    ValueError: not one [MASK], or a text that `encode` (section 7) refuses.
    """
    tokenizer, model = load_pretrained("BERT")
    ids = encode(text, tokenizer, model.config.max_position_embeddings).to(model.device)
    places = (ids[0] == tokenizer.mask_token_id).nonzero()  # where it stands: [1, 1]
    if len(places) != 1:
        raise ValueError("write [MASK] once, in place of the word to be guessed")
    logits = model(ids).prediction_logits[0]  # [T, symbols]
    p, best = logits[places.item()].softmax(-1).topk(5)  # at the mask
    words = tokenizer.convert_ids_to_tokens(best.tolist())
    shares = [round(100 * share, 1) for share in p.tolist()]
    return dict(zip(words, shares, strict=True))


@torch.no_grad()
def features(bert: tuple[Any, Any], texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """What BERT makes of n texts: ids [n, T], their vectors [n, T, d], means [n, d].

    Shorter texts are filled up (padding); the mask says what is real: 1, or 0.
    """
    tokenizer, model = bert
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    ids = batch.input_ids
    mask = batch.attention_mask
    states = model.bert(ids, attention_mask=mask).last_hidden_state
    real = mask[:, :, None]  # [n, T, 1]
    # [n, T, d] * [n, T, 1]: the d numbers of each place times 1, or 0 for padding
    means = (states * real).sum(1) / real.sum(1)
    return ids, states, means


@torch.no_grad()
def count_found(bert: tuple[Any, Any], texts: list[str], hidden: list[str]) -> int:
    """For how many texts BERT's first guess for their [MASK] is the hidden word."""
    tokenizer, model = bert
    ids, states, _ = features(bert, texts)
    # where ids are [MASK], the d numbers there; one place in each text: [n, d]
    at_masks = states[ids == tokenizer.mask_token_id]
    logits = model.cls.predictions(at_masks)  # fill_mask's, at these only: [n, symbols]
    words = tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
    return sum(word == right for word, right in zip(words, hidden, strict=True))


def show_masks(lesson: Lesson) -> None:
    """5.10 BERT has learned to guess hidden words, from both sides

    A word of the novel's unseen tenth is hidden. BERT sees four words and a full stop:
    four before it, four after it, or two and two. How often does it guess the word?
    """
    lesson.begin(show_masks)
    bert = lesson.load("BERT")
    for sentence in sentences("masks")[2:]:  # two of those in data/sentences.json
        likely = fill_mask(sentence)
        guesses = [f"{word} {likely[word]:.0f} %" for word in likely]
        lesson.say(f"{sentence} -> {', '.join(guesses[:3])}")

    before, after, around, hidden = [], [], [], []
    for left, word, right in sentences("masked")[::2]:  # every other one: saves time
        # each ends with a full stop, or BERT would guess one for a [MASK] at the end
        before.append(f"{left} [MASK].")
        after.append(f"[MASK] {right}.")
        near_left = " ".join(left.split()[2:])  # the two words next to it
        near_right = " ".join(right.split()[:2])
        around.append(f"{near_left} [MASK] {near_right}.")
        hidden.append(word)
    found = [count_found(bert, texts, hidden) for texts in (before, after, around)]
    told = f"Of {len(hidden)} words it finds {found[0]} from four before, {found[1]} "
    told += f"from four after, {found[2]} from two and two"
    lesson.shows(told, found[2] > max(found[:2]))
    word, times = Counter(hidden).most_common(1)[0]
    told = f"Always saying '{word}' finds {times}. With four on one side [MASK] seems "
    lesson.say(f"{told}the first or last word.")


def nearest(text: str, texts: Iterable[str]) -> str:
    """Of some texts the nearest in meaning, by the cosine of BERT's mean vectors.

    ValueError: no texts, or one of them refused by `encode`.
    """
    bert = load_pretrained("BERT")
    texts = [] if isinstance(texts, str) else list(texts)
    if not texts:
        raise ValueError("give a list of texts to choose from")
    for one in (text, *texts):  # refuses what cannot be read
        encode(one, bert[0], bert[1].config.max_position_embeddings)
    _, _, means = features(bert, [text, *texts])
    alike = F.cosine_similarity(means[:1], means[1:])  # [texts]
    return texts[int(alike.argmax())]


def show_senses(lesson: Lesson) -> None:
    """5.11 Feature extraction: a word's vector depends on its sentence

    Is the bank of a river more like the bank of a stream than like one with money in
    it? The cosine of two vectors says how alike they are (1: the same direction).
    """
    lesson.begin(show_senses)
    bert = lesson.load("BERT")
    senses = sentences("senses")
    same_sense, other_sense = [], []
    for word, three in senses.items():  # twice in one sense, then in another
        ids, states, _ = features(bert, three)
        number = bert[0].convert_tokens_to_ids(word)
        vectors = states[ids == number]  # the word's own in each sentence: [3, d]
        # cosine(a, b) = a b / (length of a x length of b)
        near, far = F.cosine_similarity(vectors[:1], vectors[1:]).tolist()
        same_sense.append(near)
        other_sense.append(far)

    lesson.table("cosine", senses, {"same sense": same_sense, "other": other_sense})
    right = sum(near > far for near, far in zip(same_sense, other_sense, strict=True))
    told = f"{lesson.called('BERT')} tells the senses of {right} of {len(senses)} words"
    lesson.shows(f"{told} apart", right >= 8)
    if lesson.source == "embedded":  # measured by tests/controls.py
        told = "(Untrained: 5. Its neighbours' own vectors, without BERT's layers: 7. "
        lesson.say(f"{told}[SEP], the end mark: 9, too.)")
    query = "The engine refuses to run."
    found = nearest(query, sentences("search"))
    lesson.say(f"Nearest of ten to '{query}': {found}")


def judge(text: str) -> tuple[str, float]:
    """DistilBERT, fine-tuned to judge reviews: POSITIVE or NEGATIVE, how sure, in %.

    ValueError: a text that `encode` refuses.
    """
    tokenizer, model = load_pretrained("DistilBERT")
    ids = encode(text, tokenizer, model.config.max_position_embeddings).to(model.device)
    p = model(ids).logits[0].softmax(-1)
    return model.config.id2label[int(p.argmax())], round(100 * p.max().item(), 1)


def shuffle_words(sentence: str) -> str:
    """The same words in a random order."""
    words = sentence.rstrip(".").split()
    return " ".join(words[place] for place in torch.randperm(len(words)).tolist()) + "."


def show_opinions(lesson: Lesson) -> None:
    """5.12 Classification: a fine-tuned BERT says whether an opinion is good or bad

    DistilBERT has learned to judge parts of film reviews (the small one also other
    texts); at its end an MLP decides. Here it judges forty opinions on other things, as
    they are and with their words shuffled.
    """
    lesson.begin(show_opinions)
    _, model = lesson.load("DistilBERT")
    right, as_before, negated = [], [], []
    examples: dict[str, str] = {}
    negations = {"not", "never", "no", "nothing", "nobody", "without"}
    for feeling in ("POSITIVE", "NEGATIVE"):
        for sentence in sentences(feeling):
            said, sure = judge(sentence)
            right.append(said == feeling)
            for _ in range(5):
                as_before.append(judge(shuffle_words(sentence))[0] == said)
            if negations & set(sentence.lower().split()):  # those in both
                negated.append(said == feeling)
            verdict = "correct" if said == feeling else "WRONG"
            if verdict not in examples:  # the first of its kind
                examples[verdict] = f"{said} {sure:.0f} %, {verdict}: {sentence}"

    for example in examples.values():
        lesson.say(example)
    share = 100 * mean(right)
    name = "opinions: a DistilBERT"
    lesson.keep(name, model, "elsewhere", "", share)
    same = 100 * mean(as_before)
    told = f"{sum(right)} of {len(right)} are correct, with a negation {sum(negated)} "
    told += f"of {len(negated)}; shuffled, {same:.0f} % are judged as before"
    lesson.shows(told, sum(right) >= 30 and same >= 85)
    lesson.say("So this small model weighs words, and hardly minds their order.")


def demo_bert(lesson: Lesson | None = None) -> Lesson:
    """Section 5: BERT, which sees both sides of a word and so can judge a text."""
    lesson = lesson or Lesson()
    lesson.say("5. Transformers: BERT", "h2")
    show_sight(lesson)
    show_positions(lesson)
    show_masks(lesson)
    show_senses(lesson)
    show_opinions(lesson)
    return lesson


# %% 6. Which one to use


def show_table(lesson: Lesson) -> None:
    """6.1 When to use which?

    The lecture's answer, and the part each reason is from; then this run's figures.
    """
    lesson.begin(show_table)
    rows = {
        "MLP": ["tables, vectors", "all inputs alike, any order will do (3.4)"],
        "CNN": ["images, grids", "the same filter finds a pattern anywhere (3.3)"],
        "RNN, LSTM": ["text, time, speech", "keeps a state, step by step (4.3, 5.7)"],
        "GPT": ["writing text", "sees all that came before, at once (5.2, 5.5)"],
        "BERT": ["judging text", "sees both sides of a word (5.8, 5.12)"],
    }
    lesson.table("", ["best for", "because"], rows)
    scores = {}
    for name, score in lesson.scores.items():
        scores[name] = [score.get(column, "") for column in SCORES]
    if scores:
        lesson.table("task: model", SCORES, scores)


# %% 7. The lesson ends here. What follows is what its parts stand on: data, the run.
#
# It is the workshop. Nothing of it is needed to understand the parts: skip it at first.


def short_training(model: nn.Module, steps: int, rate: float) -> torch.optim.Optimizer:
    """The optimizer of `train`, with what a training of seconds needs besides.

    Adam with shorter memories than 1.3's, 0.7 and 0.9, for there are hundreds of steps
    only. The rate rises first, so that the random start does no harm, then falls to 0,
    so that the end is calm (Smith and Topin 2019). A gradient longer than 1 is cut to 1
    (clipping), so that no single batch throws the weights far.
    """
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, lr=rate, betas=(0.7, 0.9), fused=True)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = one_cycle(optimizer, rate, total_steps=steps, cycle_momentum=False)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(weights, max_norm=1.0)

    # PyTorch calls these two before and after each optimizer.step()
    optimizer.register_step_pre_hook(clip)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def pick_device(wanted: str | torch.device = "auto") -> torch.device:
    """CUDA, else Apple's MPS, else the CPU; or the wanted one. ValueError: absent.

    A device that cannot hold a single number counts as absent.
    """
    names: list[str | torch.device] = ["cuda", "mps", "cpu"]
    for name in names if str(wanted) == "auto" else [wanted]:
        with suppress(RuntimeError, AssertionError):
            torch.ones(1, device=name).item()
            return torch.device(name)
    raise ValueError(f"no device {wanted} here: auto takes the best that there is")


# Data. A function with @cache works once; a second call hands back what it found. All
# end in one line, an OSError, where a file is missing or not whole.


@contextmanager
def reading(path: Any, advice: str = "get the repository again") -> Iterator[None]:
    """What goes wrong in a `with reading(path):` ends in one line, an OSError."""
    try:
        yield  # here the block below `with` runs
    except (NameError, AttributeError, TypeError, ImportError):  # not the file's fault
        raise
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        told = f"{path} is missing, or not whole ({problem}): {advice}"
        raise OSError(told) from error


@cache
def load_letters(device: torch.device) -> Data:
    """UCI Letter Recognition (Slate 1991): 20,000 letters, the last fifth as test."""
    file = DATA / "letter-recognition.csv"
    with reading(file), file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row][1:]  # without the heading
        y = torch.tensor(["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(row[0]) for row in rows])
        x = torch.tensor([list(map(float, row[1:17])) for row in rows])

    n = len(x) * 4 // 5
    x = (x - x[:n].mean(0)) / x[:n].std(0)  # each column: mean 0, deviation 1
    x = x.to(device)
    y = y.to(device)
    return Data(x[:n], y[:n], x[n:], y[n:])


def read_archive(name: str, header: int) -> Tensor:
    """The bytes [n] of one of MNIST's archives, without its header."""
    file = DATA / "MNIST" / "raw" / f"{name}-ubyte.gz"
    with reading(file):
        content = bytearray(gzip.decompress(file.read_bytes()))
    return torch.frombuffer(content, dtype=torch.uint8)[header:]


@cache
def load_mnist(device: torch.device, quick: bool = False) -> Data:
    """MNIST (LeCun and Cortes 1998): pixels [n, 1, 28, 28] of mean 0, deviation 1."""
    some = slice(1_000 if quick else None)  # None: all
    parts = []
    for name in ("train", "t10k"):
        pixels = read_archive(f"{name}-images-idx3", header=16).view(-1, 1, 28, 28)
        digits = read_archive(f"{name}-labels-idx1", header=8)
        parts.append((pixels[some].to(device) / 255 - 0.1307) / 0.3081)
        parts.append(digits[some].to(device).long())
    return Data(*parts)


@cache
def load_novel() -> tuple[str, str]:
    """Pride and Prejudice: nine tenths to learn from, and its last tenth, unseen."""
    file = DATA / "pride-and-prejudice.txt"
    with reading(file):
        paragraphs = file.read_text(encoding="utf-8").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


@cache
def load_tokenizer() -> Tokenizer:
    """What cuts text into 3,000 kinds of pieces, learned from Austen's novels."""
    file = DATA / "models" / "gpt2-austen" / "tokenizer.json"
    with reading(file):
        return Tokenizer.from_file(str(file))


@cache
def load_pieces(quick: bool = False) -> tuple[list[int], list[int], float]:
    """The novel in pieces: seen, unseen (quick: less of it), characters of a piece."""
    seen, unseen = load_novel()
    unseen = unseen[: 10_000 if quick else None]
    seen_ids = load_tokenizer().encode(seen).ids
    unseen_ids = load_tokenizer().encode(unseen).ids
    return seen_ids, unseen_ids, len(unseen) / len(unseen_ids)


@cache
def count_tables(quick: bool = False) -> list[float]:
    """Tables that count: bits a character, from the last 0 to 3 pieces (n-grams).

    Where a table has seen little, the one before counts more (Witten and Bell 1991; the
    smoothing of Kneser and Ney 1995 does better: tests/controls.py).
    """
    seen, unseen, letters = load_pieces(quick)
    p = [1 / load_tokenizer().get_vocab_size()] * len(unseen)  # of what came, at first
    bits = []
    for n in range(4):
        # every n + 1 pieces in a row, and how often they came. (For n = 1 it zips all
        # pieces with all from the second on.)
        runs = Counter(zip(*[seen[k:] for k in range(n + 1)], strict=False))
        total: Counter[tuple[int, ...]] = Counter()  # of the first n of them
        kinds: Counter[tuple[int, ...]] = Counter()  # and how many pieces followed
        for run, times in runs.items():
            total[run[:-1]] += times
            kinds[run[:-1]] += 1
        for place in range(3, len(unseen)):
            run = tuple(unseen[place - n : place + 1])
            k = kinds[run[:-1]]
            if k:
                # p_n = (count + kinds x p_(n-1)) / (total + kinds)
                p[place] = (runs[run] + k * p[place]) / (total[run[:-1]] + k)
        bits.append(mean(-math.log2(value) for value in p[3:]) / letters)
    return bits


def sentences(kind: str) -> Any:
    """Test sentences of one kind (data/README.md); no model here has seen them."""
    file = DATA / "sentences.json"
    with reading(file):
        return json.loads(file.read_text(encoding="utf-8"))[kind]


def prepare_digit(picture: Image.Image) -> Tensor:
    """A picture's digit as MNIST's: 20 of 28 pixels, centred by mass [1, 1, 28, 28]."""
    picture = ImageOps.exif_transpose(picture)  # upright, however the camera was held
    if picture.mode[0] in "IF":  # a scan with greys up to 65,535, which is 257 x 255
        picture = picture.convert("F").point(lambda grey: grey / 257).convert("L")
    w, h = (max(1, 120 * side // max(1, *picture.size)) for side in picture.size)
    light = to_tensor(picture.convert("RGBA").resize((w, h)))  # [4, h, w], 0 to 1
    light = 1 - light[3] * (1 - light[:3])  # white where the picture is transparent
    if light[:, 15:-15, 15:-15].median() < 0.4 * light.max():  # a blackboard
        light = 1 - light
    # the paper: at each place the lightest within 15 pixels, for strokes are narrower,
    # then the darkest of those (the least of x is -max(-x))
    paper = -F.max_pool2d(-F.max_pool2d(light, 31, 1, 15), 31, 1, 15)
    ink = ((paper - light) / paper.clamp(min=0.2)).amax(0, keepdim=True)  # [1, h, w]
    # ink counts most in the middle (a hann window is 0 at the rim): there the digit
    # begins, then it grows over ink only
    window = torch.outer(torch.hann_window(h + 1)[1:], torch.hann_window(w + 1)[1:])
    near = (ink > ink.max().clamp(min=0.3) / 2) * window
    part = (near == near.max()).float()
    for _ in range(200):
        part = (near > 0) * F.max_pool2d(part, 7, 1, 3)
    alone = (part * near).sum() > 0.9 * near.sum()
    if not alone or near.max() < 0.02 or part.mean() > 0.4:  # or at the rim; or all ink
        raise ValueError("not one digit to be seen: write one, dark on light paper")
    places = part[0].nonzero().float()  # row and column of each of its pixels
    side = round((places.amax(0) - places.amin(0) + 1).max().item() * 28 / 20)
    top, left = (places.mean(0) + 0.5 - side / 2).round().int().tolist()
    digit = resized_crop(part, top, left, side, side, [28, 28])[None]
    return torch.as_tensor((digit / digit.max() - 0.1307) / 0.3081)


# Pretrained models: the small one in data/models, and the real one, repository@revision
SMALL = {"GPT-2": "gpt2-austen", "BERT": "bert-mini"}
SMALL["DistilBERT"] = "distilbert-sst2-mini"
HUB = {
    "GPT-2": "openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "BERT": "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594",
    "DistilBERT": "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    "@714eb0fa89d2f80546fda750413ed43d93601a13",
}
# the last loaded of each name: (source, device), tokenizer, model
LOADED: dict[str, tuple[Any, Any, Any]] = {}


def load_pretrained(
    name: str, source: str = "", device: torch.device | None = None
) -> tuple[Any, Any]:
    """(tokenizer, model) of GPT-2, BERT or DistilBERT; source: "embedded" or "hub".

    Without a source: the one that was loaded last, or the embedded one, on the CPU.
    OSError: it cannot be read.
    """
    wanted = (source or "embedded", device or torch.device("cpu"))
    if name in LOADED and (not source or LOADED[name][0] == wanted):
        return LOADED[name][1:]

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # it saves 3 s
    import transformers  # here, because it takes seconds

    transformers.utils.logging.disable_progress_bar()
    from_hub = source == "hub"
    folder = download(name) if from_hub else DATA / "models" / SMALL[name]
    advice = "try it again, online" if from_hub else "get the repository again"
    kind: Any = transformers.AutoModelForPreTraining  # with the heads it learned with
    if name == "DistilBERT":
        kind = transformers.AutoModelForSequenceClassification
    # eager attention can show where it looks
    how = {"attn_implementation": "eager", "use_safetensors": True}
    with reading(folder / "model.safetensors", advice):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = kind.from_pretrained(folder, dtype=torch.float32, **how).to(wanted[1])
    LOADED[name] = (wanted, tokenizer, model.eval().requires_grad_(False))
    return LOADED[name][1:]


def download(name: str) -> Path:
    """The folder of a model of the hub; where that cannot be reached, of its cache."""
    from huggingface_hub import model_info, snapshot_download

    repository, revision = HUB[name].split("@")
    offline = True
    with suppress(Exception):  # this fails at once where a download tries for a minute
        offline = not model_info(repository, revision=revision, timeout=5)
    how: dict[str, Any] = {"revision": revision, "local_files_only": offline}
    how["allow_patterns"] = ["*.json", "*.txt", "model.safetensors"]
    with reading(repository, "neither the model hub nor its cache here gave it"):
        return Path(snapshot_download(repository, **how))


def gpt2_weights(library: Any) -> list[Tensor]:
    """The weights of the library's GPT-2, in the order in which `GPT` has them."""
    weights = []
    for name, weight in library.transformer.named_parameters():
        linear = ".attn." in name or ".mlp." in name  # these are there [in, out]
        weights.append(weight.t() if linear else weight)  # .t(): a bias stays as it is
    return [*weights, library.lm_head.weight]


def continue_text(text: str, max_new_tokens: int = 30, **how: float) -> str:
    """GPT-2 goes on with a text: greedily, by the likeliest piece, or by drawing one.

    how: temperature, over 0: below 1 it favours the likely; top_k: draws from so many
    likeliest; top_p, up to 1: from the likeliest that together have this probability.
    ValueError: a number out of range, or a text as in `encode`.
    """
    tokenizer, model = load_pretrained("GPT-2")
    longest = model.config.n_positions - 1
    if not 1 <= max_new_tokens <= longest:
        raise ValueError(f"max_new_tokens: 1 to {longest}")
    if min(how.values(), default=1) <= 0 or how.get("top_p", 1) > 1:
        raise ValueError("temperature and top_k are over 0, top_p is over 0, up to 1")
    ids = encode(text, tokenizer, longest + 1 - max_new_tokens).to(model.device)
    how = how or {"top_k": 1}  # greedy
    out = generate(GPT.with_weights_of(model), ids, max_new_tokens, **how)
    return " ".join(tokenizer.decode(out[0]).split())


def encode(text: str, tokenizer: Any, longest: int) -> Tensor:
    """The tokens of a text, as numbers [1, T].

    ValueError: no str, nothing in it, half a character, more than `longest` tokens.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError("give one text, a str that is not empty")
    text.encode()  # a ValueError of Python's for half a character
    ids: Tensor = tokenizer(text, return_tensors="pt", verbose=False).input_ids
    if ids.shape[1] > longest:
        raise ValueError(f"the text has {ids.shape[1]} tokens; {longest} can be read")
    return ids


# the columns of 6.1's second table, in the order in which `Lesson.keep` takes them
SCORES = ["parameters", "learned from", "seconds", "% correct", "bits a character"]


class Lesson:
    """How to run the demos, and what they found.

    claims: dicts of row, sentence, passed (None: left out by quick). models, scores: by
    name. status: 0 all shown, 1 not all, 130 stopped. ValueError: no such device, or
    models is neither "embedded" nor "hub".
    """

    def __init__(
        self,
        device: str | torch.device = "auto",
        quick: bool = False,
        models: str = "embedded",
        seed: int = 0,
        figures: str | Path = DATA / "figures",
    ) -> None:
        if models not in ("embedded", "hub"):
            raise ValueError(f'models is "embedded" or "hub", not {models!r}')
        torch.manual_seed(seed)  # refuses what is no seed
        self.device = pick_device(device)
        self.quick = quick
        self.source = models
        self.seed = seed
        self.figures: Path | None = Path(figures).expanduser()
        self.status = 0
        self.row = ""  # of the part that is being shown
        self.full = False
        self.claims: list[dict[str, Any]] = []
        self.scores: dict[str, dict[str, Any]] = {}
        self.models: dict[str, Any] = {}
        self.story: list[str] = []  # what the page shows, in HTML

    def begin(self, part: Callable[..., Any], full: bool = False) -> None:
        """Begin a part, from the lesson's seed, with the words that describe it."""
        torch.manual_seed(self.seed)
        title, _, question = inspect.cleandoc(part.__doc__ or "").partition("\n\n")
        self.row = title.split()[0]
        self.full = full
        self.say(title, f'h3 id="{self.row}"')
        self.say(" ".join(question.split()))

    def say(self, text: str, tag: str = "p") -> None:
        """Print a text, and keep it for the page, where it stands in this HTML tag."""
        write({"h2": "\n\n", "h3": "\n"}.get(tag[:2], "") + text)
        self.story.append(f"<{tag}>{html.escape(text)}</{tag.split()[0]}>")

    def table(
        self, corner: str, columns: Iterable[Any], rows: Mapping[str, Iterable[Any]]
    ) -> None:
        """Print a table; words stand at the left of a column, numbers at the right."""
        lines = [[corner, *columns]]
        lines += [[name, *values] for name, values in rows.items()]
        padded = []
        for column in zip(*lines, strict=True):  # the columns of the lines
            words = all(isinstance(value, str) for value in column[1:])
            texts = [shown(value) for value in column]
            width = max(map(len, texts))
            padded.append([t.ljust(width) if words else t.rjust(width) for t in texts])
        text = ["  " + "   ".join(line).rstrip() for line in zip(*padded, strict=True)]
        self.say("\n".join(text), "pre")

    def same(self, sentence: str, ours: Any, theirs: Any, **how: Any) -> None:
        """Claim that two results, or all of two lists, are equal, shape and type, too.

        Whole numbers exactly, others to rounding: see torch.testing.assert_close.
        """
        difference = ""
        try:
            torch.testing.assert_close(ours, theirs, **how)
        except AssertionError as error:
            difference = f" ({' '.join(str(error).split())})"
        self.shows(sentence + difference, not difference)

    def shows(self, sentence: str, holds: bool | Tensor) -> None:
        """Claim a sentence that carries its numbers, if the condition holds."""
        passed = None if self.full and self.quick else bool(holds)  # None: left out
        self.claims.append({"row": self.row, "sentence": sentence, "passed": passed})
        if passed is not None:
            mark = "✓" if passed else "✗ NOT SHOWN:"
            self.say(f"{mark} {sentence}. ({self.row})", 'p class="claim"')

    def plot(
        self,
        title: str,
        curves: Mapping[str, Sequence[float]],
        across: str,
        up: str,
        x: Sequence[float] | None = None,
        log: bool = False,
    ) -> None:
        """Draw curves, their names at their ends; across, up: the names of the axes.

        x: where the values stand, else at 0, 1, 2 ...; all are named, if at most eight.
        log: up goes by powers of ten. A value that is no number is left out.
        """
        x = x or range(max(map(len, curves.values())))
        lines = {}
        for name, values in curves.items():
            heights = torch.tensor(values, dtype=torch.double)
            heights = heights.log10() if log else heights
            points = zip(x, heights.tolist(), strict=False)
            lines[name] = [(a, b) for a, b in points if math.isfinite(b)]
        all_heights = [b for _, b in chain(*lines.values())]
        to_x, named_x = axis(x, LEFT, RIGHT)
        to_y, named_y = axis(all_heights or [0.0], BOTTOM, TOP, least=int(log))

        image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        pen = ImageDraw.Draw(image)
        for value in named_y:
            pen.line((LEFT, to_y(value), RIGHT, to_y(value)), "#DDDDDD", 2)
            put(pen, LEFT - 16, to_y(value), f"{10**value if log else value:,g}", "rm")
        for value in x if len(x) <= 8 else named_x:
            pen.line((to_x(value), TOP, to_x(value), BOTTOM), "#DDDDDD", 2)
            put(pen, to_x(value), BOTTOM + 16, f"{value:,g}", "mt")
        put(pen, (LEFT + RIGHT) / 2, BOTTOM + 110, across, "mm")
        put(pen, 40, TOP - 50, up, "lm")
        put(pen, WIDTH / 2, 50, title, "mm", size=48)

        # from the highest end down: each name at its curve's end or, lower, at `free`
        free = 0.0
        drawn = [name for name in lines if lines[name]]
        for name in sorted(drawn, key=lambda name: -lines[name][-1][1]):
            others = [COLOURS[known] for known in COLOURS if known not in lines]
            colour = COLOURS.get(name, others[list(lines).index(name) % len(others)])
            pixels = [(to_x(a), to_y(b)) for a, b in lines[name]]
            pen.line(pixels, colour, 6, joint="curve")
            free = max(free, pixels[-1][1])
            pen.line([pixels[-1], (RIGHT + 30, free)], "#AAAAAA", 2)
            put(pen, RIGHT + 40, free, name, "lm", colour=colour)
            free += 48
        self.keep_image("plot", title, image.reduce(2))

    def picture(
        self,
        title: str,
        tiles: Sequence[Tensor] | Tensor,
        captions: Sequence[str],
        columns: int,
        words: Sequence[Sequence[str]] = (),
    ) -> None:
        """Draw tiles [H, W], all alike: the smallest number white, the largest blue.

        words: for each tile those that stand at its rows, and turned above its columns.
        """
        low = min(tile.min().item() for tile in tiles)
        high = max(tile.max().item() for tile in tiles)
        side = 90 if words else 0  # room for the words
        width = 900 // columns - 24 - side
        height = width * tiles[0].shape[0] // tiles[0].shape[1]
        row = side + height + 66
        size = (900, 50 + math.ceil(len(tiles) / columns) * row)
        image = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(image)
        put(pen, 450, 24, title, "mm", size=24)

        for n, tile in enumerate(tiles):
            grey = to_pil_image((tile.float().cpu() - low) / (high - low or 1.0))
            blue = ImageOps.colorize(grey, "white", "#08306B", mid="#4292C6")
            blue = blue.resize((width, height), Image.Resampling.NEAREST)
            left = n % columns * (900 // columns) + 12 + side
            top = n // columns * row + 50 + side
            image.paste(ImageOps.expand(blue, 1, "#999999"), (left, top))
            put(pen, left + width / 2, top + height + 8, captions[n], "ma", size=18)
            # its words: left of their rows and, turned, above their columns
            for place, word in enumerate(words[n] if words else []):
                middle = round((place + 0.5) * width / len(words[n]))
                put(pen, left - 6, top + middle, word, "rm", size=16)
                turned = Image.new("RGB", (side, 20), "white")
                put(ImageDraw.Draw(turned), 0, 10, word, "lm", size=16)
                upright = turned.rotate(90, expand=True)
                image.paste(upright, (left + middle - 10, top - side - 4))
        self.keep_image("tiles", title, image)

    def keep_image(self, kind: str, title: str, image: Image.Image) -> None:
        """Keep a picture for the page, and as a file that has the part's number."""
        png = BytesIO()
        image.quantize(64).save(png, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        self.story.append(f'<img src="{source}" alt="{html.escape(title)}">')
        self.store(f"{self.row}-{kind}.png", png.getvalue())

    def store(self, name: str, content: bytes) -> None:
        """Write a file of the figures; where that cannot be, say so, once."""
        try:
            if self.figures:
                self.figures.mkdir(parents=True, exist_ok=True)
                (self.figures / name).write_bytes(content)
        except OSError as error:
            write(f"No pictures and no page are kept: {error}")
            self.figures = None

    def keep(self, name: str, model: nn.Module, *figures: Any) -> None:
        """File a model for the prompt, and its line of the last table."""
        self.models[name] = model
        row = [parameters(model), *figures]
        self.scores[name] = dict(zip(SCORES, row, strict=False))

    def called(self, name: str) -> str:
        """What the model really is: the name, or that of the small one in its place."""
        return SMALL[name] if self.source == "embedded" else name

    def load(self, name: str) -> tuple[Any, Any]:
        """(tokenizer, model) of GPT-2, BERT or DistilBERT, as this lesson has them."""
        if name not in self.models and self.source == "embedded":
            told = f"({self.called(name)}, a small model, stands in for {name}; "
            self.say(f"{told}the real one: --models hub.)")
        tokenizer, self.models[name] = load_pretrained(name, self.source, self.device)
        return tokenizer, self.models[name]


def write(text: str) -> None:
    """Print text, 100 columns wide at most; a sign the screen lacks becomes a ?."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    width = max(40, min(100, shutil.get_terminal_size((100, 24)).columns))
    fold = textwrap.TextWrapper(width, subsequent_indent="  ", break_on_hyphens=False)
    fold.break_long_words = False
    for line in text.encode(code, "replace").decode(code).split("\n"):
        print(fold.fill(line), flush=True)


def shown(value: Any) -> str:
    """A number as a table shows it, with the digits that matter; text as it is."""
    value = value.item() if isinstance(value, Tensor) else value
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


# What is drawn: with Pillow alone, twice as large as it is shown, which smooths lines.
WIDTH, HEIGHT = 1800, 940
LEFT, RIGHT, TOP, BOTTOM = 190, 1390, 170, 780
# Okabe and Ito's colours, which the colour-blind tell apart, too: a model keeps its own
COLOURS = {"RNN": "#0072B2", "MLP": "#D55E00", "LSTM": "#009E73", "CNN": "#CC79A7"}
COLOURS |= {"GPT": "#E69F00", "linear": "#000000"}


def put(pen: Any, x: float, y: float, text: str, anchor: str, **how: Any) -> None:
    """Write a text; the anchor says what of it is at x, y: "lm" is its left middle."""
    letters = text.encode("ascii", "replace").decode()  # all that Pillow's font has
    font = ImageFont.load_default(how.get("size", 40))
    pen.text((x, y), letters, how.get("colour", "black"), font, anchor, align="center")


def axis(values: Sequence[float], start: float, end: float, least: float = 0) -> Any:
    """One axis: a function from a value to its pixel, and round values to be named.

    They are 1, 2, 5 or 10 times a power of ten apart, `least` or more: at most nine.
    """
    margin = 0.04 * (max(values) - min(values)) or 1.0
    low = min(values) - margin
    high = max(values) + margin

    def pixel(value: float) -> float:
        return start + (value - low) / (high - low) * (end - start)

    ninth = (high - low) / 9
    power = 10.0 ** math.floor(math.log10(ninth))
    apart = max(least, min(n * power for n in (1, 2, 5, 10) if n * power >= ninth))
    named = range(math.ceil(low / apart), math.floor(high / apart) + 1)
    return pixel, [n * apart for n in named]


# every place of a map of the half-moons, 80 rows of 120: [9600, 2], as (x, y)
MAP_ROWS = torch.linspace(1.5, -1, 80)
PLACES = torch.cartesian_prod(MAP_ROWS, torch.linspace(-1.5, 2.5, 120)).flip(1)


def draw_region(blue: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A map [80, 120], darker where it is blue [9600], with the points x, y on it."""
    image = 0.2 + 0.4 * blue.float().view(80, 120)
    column = (x[:, 0] + 1.5) / 4.0 * 119
    row = (1.5 - x[:, 1]) / 2.5 * 79
    image[row.long().clamp(0, 79), column.long().clamp(0, 119)] = y[:, 0]
    return image


PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>How does deep learning work?</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 58rem; margin: auto; padding: 1rem; font: 1.1rem/1.5 sans-serif; }
h2, h3 { margin-top: 2.5rem; break-after: avoid; }
a { display: block; padding: 0.2rem 0; }
pre { overflow-x: auto; padding: 0.7rem; background: #8882; font-size: 0.9rem; }
img { max-width: 100%; box-sizing: border-box; background: white; padding: 0.4rem; }
pre, img { break-inside: avoid; }
.claim { font-weight: 600; }
</style>
<h1>How does deep learning work?</h1>
"""


def page(story: Sequence[str]) -> str:
    """The whole run as one HTML file, which needs no other file and no network."""
    body = "\n".join(story)
    parts = re.findall('<h3 id="(.*?)">(.*?)</h3>', body)
    links = [f'<a href="#{row}">{title}</a>' for row, title in parts]
    return "\n".join([PAGE, *links, body])


DEMOS = {"mlp": demo_mlp, "cnn": demo_cnn, "lstm": demo_lstm}
DEMOS |= {"gpt2": demo_gpt2, "bert": demo_bert}


def run_demo(name: str, lesson: Lesson) -> None:
    """Run one demo; what goes wrong in it is shown, and the others go on."""
    try:
        DEMOS[name](lesson)
    except OSError as error:  # of a file; the screen's own comes again in the next line
        lesson.status = 1
        lesson.say(f"✗ The demo {name} stopped: {error}")
    except Exception as error:
        lesson.status = 1
        inside = error.__traceback__ and error.__traceback__.tb_next  # from the demo on
        lines = traceback.format_exception(type(error), error, inside)
        lesson.say(f"✗ The demo {name} stopped:\n{''.join(lines)}", "pre")
    load_mnist.cache_clear()  # 0.2 GB that no other demo needs


def parse_arguments(arguments: Sequence[str]) -> tuple[Lesson, list[str]]:
    """The lesson and the demos that are wanted; a wrong argument ends with status 2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    names = " ".join(DEMOS)
    add("--only", nargs="+", choices=DEMOS, default=DEMOS, metavar="DEMO", help=names)
    add("--quick", action="store_true", help="short trainings, for a first look")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    add("--models", choices=("embedded", "hub"), default="embedded", help="hub: 1.3 GB")
    add("--seed", type=int, default=0, metavar="N")
    add("--figures", default=DATA / "figures", metavar="DIR", help="for the pictures")
    options = vars(parser.parse_args(arguments))
    wanted = options.pop("only")
    try:
        return Lesson(**options), [name for name in DEMOS if name in wanted]
    except (ValueError, RuntimeError) as error:
        parser.exit(2, str(error).split("\n")[0] + "\n")


def run_all(lesson: Lesson, names: list[str]) -> None:
    """The demos in the lecture's order, the table, the count, the page."""
    began = time.perf_counter()
    where = f"on {lesson.device}, seed {lesson.seed}"
    write(f"How does deep learning work? ({where}) ✓: its numbers are from this run.")
    for name in names:
        run_demo(name, lesson)
    lesson.say("6. Which one to use", "h2")
    show_table(lesson)

    passed = [claim["passed"] for claim in lesson.claims]
    lesson.status = max(lesson.status, int(False in passed))
    told = f"{passed.count(True)} claims shown, {passed.count(None)} left out, "
    told += f"{passed.count(False)} failed, in {time.perf_counter() - began:.0f} s."
    file = "lesson.html"
    if len(names) < len(DEMOS):
        file = f"lesson-{'-'.join(names)}.html"
    lesson.store(file, page([*lesson.story, f"<p>{told}</p>"]).encode())
    if lesson.figures:
        path = str(lesson.figures / file)
        with suppress(ValueError):  # on Windows: another drive
            path = os.path.relpath(path)
        told += f" With pictures: {path}"
    write(f"\n{told}")


def main(arguments: Sequence[str] = ()) -> Lesson:
    """Run what the arguments want, as on the command line; returns the lesson."""
    sys.stderr = sys.stderr or StringIO()  # pythonw has none, and tqdm writes there
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: get the whole repository")
    lesson, names = parse_arguments(arguments)
    try:
        run_all(lesson, names)
    except KeyboardInterrupt:
        write("\nInterrupted.")
        lesson.status = 130
    except OSError as error:  # the screen, or the file or pipe in its place
        lesson.status = 1
        if not isinstance(error, BrokenPipeError):  # that is: ... | head
            print(f"The output cannot be written: {error}", file=sys.stderr)
        sys.stdout = StringIO()  # or Python would try it again when it ends
    return lesson


if __name__ == "__main__":
    gc.freeze()  # technical: Python need not look for garbage in what was imported
    in_a_cell = "get_ipython" in globals()  # of a notebook: it goes on, with `lesson`
    lesson = main([] if in_a_cell else sys.argv[1:])
    if not (in_a_cell or sys.flags.interactive):
        gc.freeze()  # nor in the rest, as all ends: saves a second
        sys.exit(lesson.status)
