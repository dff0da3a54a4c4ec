"""How does deep learning work? The lecture's claims, each tried by the run, with its numbers.

    python 03_Deep_Learning_Models.py                    everything, in the lecture's order
    python 03_Deep_Learning_Models.py --only cnn lstm    some of mlp, cnn, lstm, gpt2, bert
    python 03_Deep_Learning_Models.py --quick            short trainings, for a first look

A claim ends with its number, as (3.4), of section 3: search for 3.4 here. `lesson.same` claims
that two results are equal, `lesson.shows` another fact (section 7). Left out: T5, batch norm."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
import timeit
import traceback
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # threads that wait must not starve other programs
try:
    import torch
    import torch.nn.functional as F
    from PIL import Image, ImageDraw, ImageOps
    from torch import Tensor, nn
    from torchvision.datasets import MNIST
    from torchvision.transforms.functional import to_pil_image, to_tensor
    from torchvision.utils import make_grid
    from tqdm import tqdm
except (ImportError, OSError, RuntimeError, AttributeError) as problem:  # missing, broken, hidden
    sys.exit(f"{problem}\nThe script needs:  python -m pip install -r requirements.txt")
except KeyboardInterrupt:  # importing takes seconds
    sys.exit(130)

DATA = Path(globals().get("__file__", "here")).resolve().parent / "data"


def pick_device(wanted: str = "auto") -> torch.device:
    """CUDA, else Apple's MPS, else the CPU; or the wanted one, ValueError where it is absent."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found = [name for name in there if there[name]] + ["cpu"]
    if wanted not in ("auto", *found):
        raise ValueError(f"no device {wanted} here; there is: {' '.join(found)}")
    return torch.device(found[0] if wanted == "auto" else wanted)


# %% 1. Core ideas
# Tensor: an array. Shapes: B rows at a time (a batch), C classes, T positions, d numbers each.


def show_neurons(lesson: Lesson) -> None:
    """1.1 A neuron computes a weighted sum of its inputs, adds a bias, applies a non-linear f."""
    x, layer, z = torch.randn(5), nn.Linear(5, 8), torch.zeros(8)  # 5 inputs, 8 neurons
    for n in range(8):
        # z = w_1 x_1 + ... + w_5 x_5 + b; each neuron has its own weights and its own b
        z[n] = (layer.weight[n] * x).sum() + layer.bias[n]
    # ReLU(z) = max(0, z)
    relu = z.clamp(min=0)
    # Sigmoid(z) = 1 / (1 + e^-z)
    sigmoid = 1 / (1 + torch.exp(-z))
    # Tanh(z) = (e^z - e^-z) / (e^z + e^-z)
    tanh = (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))
    lesson.same("1.1", "Eight neurons with ReLU, Sigmoid and Tanh by hand give PyTorch's answers",
                [relu, sigmoid, tanh], [f(layer(x)) for f in (F.relu, torch.sigmoid, torch.tanh)])


def show_backpropagation(lesson: Lesson) -> None:
    """1.2 Backpropagation computes the gradient of the loss for every weight, by the chain rule."""
    x, y = torch.randn(8, 4), torch.randint(3, (8,))  # 8 rows, 4 inputs, 3 classes
    first, second = nn.Linear(4, 5), nn.Linear(5, 3)  # W1 [5, 4], W2 [3, 5]: a row each neuron
    hidden = torch.tanh(first(x))  # [8, 5]
    logits = second(hidden)  # [8, 3]: scores, which softmax (2.3) makes probabilities
    # L = cross-entropy (2.3), so dL/dlogits = (softmax - one_hot(y)) / rows; one_hot(1): 0, 1, 0
    d_logits = (logits.softmax(1) - F.one_hot(y, 3)) / len(x)
    # logits = hidden W2^T + b2, so dL/dW2 = dL/dlogits^T hidden and dL/db2 = sum of dL/dlogits
    d_w2, d_b2 = d_logits.T @ hidden, d_logits.sum(0)  # @: matrix product; .T: transposed
    # one layer further back: dL/dhidden = dL/dlogits W2
    d_hidden = d_logits @ second.weight
    # hidden = tanh(z), so dL/dz = dL/dhidden (1 - hidden^2)
    d_z = d_hidden * (1 - hidden**2)
    # z = x W1^T + b1, so dL/dW1 = dL/dz^T x and dL/db1 = sum of dL/dz
    d_w1, d_b1 = d_z.T @ x, d_z.sum(0)
    weights = [first.weight, first.bias, second.weight, second.bias]
    lesson.same("1.2", "The chain rule by hand gives PyTorch's gradient for every weight and bias",
                [d_w1, d_b1, d_w2, d_b2], torch.autograd.grad(F.cross_entropy(logits, y), weights))


def show_optimizers(lesson: Lesson) -> None:
    """1.3 An optimizer updates the weights: two steps of SGD and of Adam (Kingma and Ba 2015)."""
    start, gradients, rate = torch.randn(6), torch.randn(2, 6), 0.1  # two made-up gradients
    # SGD: w <- w - rate g, once for each gradient g (rate: the learning rate)
    w_sgd = start - rate * gradients[0] - rate * gradients[1]
    w_adam, m, v = start, torch.zeros(6), torch.zeros(6)
    for t, g in enumerate(gradients, start=1):
        # Adam follows m, a running mean of the gradients, and divides it by their size, sqrt(v):
        # m <- 0.9 m + 0.1 g,   v <- 0.999 v + 0.001 g^2
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        # they start at 0, so early ones are raised: m' = m / (1 - 0.9^t),   v' = v / (1 - 0.999^t)
        m_fair, v_fair = m / (1 - 0.9**t), v / (1 - 0.999**t)
        # w <- w - rate m' / (sqrt(v') + 1e-8)
        w_adam = w_adam - rate * m_fair / (v_fair.sqrt() + 1e-8)
    sgd, adam = start.clone().requires_grad_(), start.clone().requires_grad_()
    for w, optimizer in (sgd, torch.optim.SGD([sgd], rate)), (adam, torch.optim.Adam([adam], rate)):
        for g in gradients:
            w.grad = g  # where an optimizer looks for the gradient
            optimizer.step()
    lesson.same("1.3", "SGD and Adam by hand end where PyTorch's do", [w_sgd, w_adam], [sgd, adam])


Data = namedtuple("Data", "x y x_test y_test")  # x, y: to learn from; others: to test
CORES = torch.get_num_threads()  # small models train on one: no thread waits for another
UNITS = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
BFLOAT16 = bool(UNITS.get("avx512_bf16"))  # any AMX has it, too; the CNN trains 1.5 times as fast


def mixed_precision(x: Tensor) -> torch.autocast:
    """Only for speed, not for what is claimed to be equal: 16 bits a number, on x's device."""
    able = torch.cuda.is_bf16_supported(including_emulation=False) if x.is_cuda else BFLOAT16
    return torch.autocast(x.device.type, torch.bfloat16, able)


def train(lesson: Lesson, name: str, model: nn.Module, steps: int, rate: float,
          batch: Callable[[int], tuple[Tensor, Tensor]]) -> tuple[list[float], float]:
    """The one training loop: returns the loss of every step, and the seconds it took.
    batch(step): inputs x [B, ...] and their classes y [B], or y [B, T] for every position."""
    steps = min(steps, 10) if lesson.quick else steps
    # beyond the lecture: Adam with 0.7 and 0.9 where 1.3 has 0.9 and 0.999, for short trainings,
    # and a rate that rises to `rate` and then falls to 0 (Smith and Topin 2018)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.7, 0.9), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, cycle_momentum=False)
    torch.set_num_threads(1 if sum(p.numel() for p in model.parameters()) < 100_000 else CORES)
    model.train()
    began, losses = time.perf_counter(), []
    for step in tqdm(range(steps), name, leave=False, disable=None):  # a bar, on a terminal only
        x, y = batch(step)
        with mixed_precision(x):
            logits = model(x)  # 1. forward pass: [B, C], or [B, C, T] for every position
            loss = F.cross_entropy(logits, y)  # 2. loss: how wrong is it?
        optimizer.zero_grad()  # or the gradients would add up from step to step
        loss.backward()  # 3. backpropagation: the gradient of the loss for every weight
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # if longer than 1, shorten to 1 (4.3)
        optimizer.step()  # 4. update: W <- W - rate gradient, in Adam's way (see 1.3)
        schedule.step()
        losses.append(loss.item())
    torch.set_num_threads(CORES)
    return losses, time.perf_counter() - began


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The model's output for all of x; eval() switches off what only training needs (dropout)."""
    model.eval()
    return torch.cat([model(part) for part in x.split(500)])  # in parts, which need less memory


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The one evaluation: the percentage of rows whose likeliest class is the right one."""
    with mixed_precision(x):
        return 100 * (predict(model, x).argmax(1) == y).float().mean().item()


def fit(lesson: Lesson, name: str, model: nn.Module, data: Data, steps: int, rate: float,
        learned: str = "", size: int = 256) -> float:
    """Train on data.x, `size` rows a step, and test on data.x_test: returns the percentage right.
    learned: what the rows are; with it, model and result are kept for the last table."""
    n = len(data.x)  # all rows in a random order, then in another, and so on: batch by batch
    rows = torch.cat([torch.randperm(n) for _ in range(1 + steps * size // n)]).split(size)
    losses, seconds = train(lesson, name, model.to(data.x.device), steps, rate,
                            lambda step: (data.x[rows[step]], data.y[rows[step]]))
    right = accuracy(model, data.x_test, data.y_test)
    if learned:
        lesson.keep(name, model, f"{n:,} {learned}", seconds=seconds, percent=right, losses=losses)
    return right


# %% 2. Multilayer perceptron (MLP)


def build_mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """An MLP: fully connected layers, y = f(W x + b) in each hidden one; x [B, ...] is flattened.
    build_mlp(16, 256, 26): 16 inputs, a hidden layer, logits [B, 26] (for regression: one)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])  # no f after the last layer


@cache
def load_letters(device: torch.device) -> Data:
    """UCI Letter Recognition (Slate 1991): 16 numbers for each of 20,000 printed letters."""
    file = DATA / "letter-recognition.csv"
    with reading(file):
        rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
        x = torch.tensor([[float(number) for number in row[1:]] for row in rows]).view(20_000, 16)
        y = torch.tensor([ord(row[0]) - ord("A") for row in rows]).to(device)
    x = ((x - x[:16_000].mean(0)) / x[:16_000].std(0)).to(device)  # mean 0, deviation 1
    return Data(x[:16_000], y[:16_000], x[16_000:], y[16_000:])  # the last 4,000 are the test


def show_outputs(lesson: Lesson) -> None:
    """2.3 The last layer: softmax for classes, Sigmoid for two, a number for regression; losses."""
    logits, y, target = torch.randn(8, 5), torch.randint(5, (8,)), torch.randn(8, 5)
    # softmax_i = exp(z_i) / sum_j exp(z_j)
    softmax = logits.exp() / logits.exp().sum(1, keepdim=True)  # [8, 5]
    # cross-entropy = -mean(log softmax at the right class)
    cross_entropy = -softmax[torch.arange(8), y].log().mean()
    # two classes: softmax = Sigmoid(difference of the logits)
    two = torch.sigmoid(logits[:, 0] - logits[:, 1])
    # regression: mean squared error = mean((prediction - target)^2)
    mse = ((logits - target) ** 2).mean()
    theirs = F.cross_entropy(logits, y), logits[:, :2].softmax(1)[:, 0], F.mse_loss(logits, target)
    lesson.same("2.3", "Softmax, cross-entropy, Sigmoid and squared error by hand equal PyTorch's",
                [cross_entropy, two, mse], theirs)


def show_letters(lesson: Lesson) -> None:
    """1.4, 1.6, 2.2 Which letter do 16 numbers describe? From few examples a deep model overfits.
    A traditional method, the nearest neighbour, does well on these features that people made."""
    say("  letters     MLP on these   MLP on others   linear   nearest neighbour   (% right)")
    data, right, gap, lead = load_letters(lesson.device), [], [], []
    for rows in (250, 1_000, 4_000, 16_000):
        part, mlp = data._replace(x=data.x[:rows], y=data.y[:rows]), build_mlp(16, 256, 256, 26)
        linear = fit(lesson, "linear, letters", build_mlp(16, 26), part, 350, 0.025, "letters", 512)
        right.append(fit(lesson, "MLP, letters", mlp, part, 350, 0.025, "letters", 512))
        seen = accuracy(mlp, part.x, part.y)
        hit = part.y[torch.cdist(data.x_test, part.x).argmin(1)] == data.y_test  # cdist: distances
        say(f"{rows:9,}{seen:13.1f}{right[-1]:14.1f}{linear:13.1f}{100 * hit.float().mean():14.1f}")
        gap.append(seen - right[-1])
        lead.append(right[-1] - linear)
    lesson.shows("1.6", f"With 250 letters the MLP overfits: it reads others worse by {gap[0]:.0f} "
                 f"points, with 16,000 by {gap[-1]:.1f}; lead on a linear one: {lead[0]:.0f}, then "
                 f"{lead[-1]:.0f}", gap[0] > 20 and gap[-1] < 5 and lead[-1] > lead[0], full=True)
    lesson.shows("2.2", f"An MLP reads {right[-1]:.1f} % of unseen letters, {lead[-1]:.0f} points "
                 "more than a linear model", right[-1] > 97 and lead[-1] > 15, full=True)
    losses = lesson.scores["MLP, letters"]["losses"]
    first, last = losses[0], mean(losses[-20:])  # untrained: -ln(1/26) = ln(26) = 3.26
    lesson.shows("1.4", f"Training brings its loss from {first:.2f}, mere guessing, to {last:.3f}",
                 abs(first - math.log(26)) < 0.2 and last < first / 10, full=True)


def show_layers(lesson: Lesson) -> None:
    """2.1, 2.2, 7.1 Every neuron is connected to each of the next layer, f between. (GPU: 7.1)"""
    # (inputs + 1) x outputs weights and biases in each layer
    formula = (16 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 26
    mlp = build_mlp(16, 256, 256, 26, activation=nn.Identity).to(lesson.device)  # no f
    w1, b1, w2, b2, w3, b3 = mlp.parameters()
    lesson.same("2.1", f"Layers of 16, 256, 256 and 26 neurons have {formula:,} parameters",
                sum(p.numel() for p in mlp.parameters()), formula)
    x = load_letters(lesson.device).x_test
    # W3 (W2 (W1 x + b1) + b2) + b3 = (W3 W2 W1) x + (W3 (W2 b1 + b2) + b3): one layer again
    one_layer = F.linear(x, w3 @ w2 @ w1, w3 @ (w2 @ b1 + b2) + b3)
    lesson.same("2.2", "Without f, three layers are one linear layer", predict(mlp, x), one_layer)
    if lesson.device.type != "cpu":  # on a CPU there is nothing to compare
        lesson.same("7.1", f"The same network gives the same on {lesson.device} and on the CPU",
                    predict(mlp, x), predict(mlp.cpu(), x.cpu()))


def demo_mlp(lesson: Lesson | None = None) -> Lesson:
    """Sections 1 and 2: how a network learns, and how an MLP reads printed letters."""
    lesson = lesson or Lesson()
    lesson.play("1. Core ideas", show_neurons, show_backpropagation, show_optimizers)
    return lesson.play("2. Multilayer perceptron (MLP)", show_outputs, show_letters, show_layers)


# %% 3. Convolutional neural network (CNN)


def build_cnn() -> nn.Sequential:
    """[Conv -> ReLU -> Pool] x 2 -> Flatten -> Dense -> Output, as LeNet (LeCun et al. 1998).
    x [B, 1, 28, 28]; returns logits [B, 10]. (For signals over time there is nn.Conv1d.)"""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),  # cnn[:3]: [B, 16, 12, 12]
        nn.Conv2d(16, 64, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2),  # cnn[:6]: [B, 64, 4, 4]
        nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU(),  # cnn[:9], dense: [B, 128]
        nn.Linear(128, 10),
    ).to(memory_format=torch.channels_last)  # an order of the pixels in memory that is faster


@cache
def load_mnist(device: torch.device, quick: bool = False) -> Data:
    """MNIST (LeCun and Cortes 1998): 60,000 handwritten digits [1, 28, 28], and 10,000 to test."""
    with reading(DATA / "MNIST" / "raw"):  # unpacked there; only what is missing is downloaded
        parts = [MNIST(DATA, train=train_part, download=True) for train_part in (True, False)]
    # [:, None]: the channel's axis; 0.1307, 0.3081: the pixels' mean, deviation; sub_: in place
    x, x_test = ((part.data[:, None].to(device) / 255).sub_(0.1307).div_(0.3081) for part in parts)
    data = Data(x, parts[0].targets.to(device), x_test, parts[1].targets.to(device))
    return Data(*(part[:1_000] for part in data)) if quick else data


@torch.no_grad()
def slide(image: Tensor, k: int, stride: int, f: Callable[[Tensor], Tensor]) -> Tensor:
    """Slide a k x k window over [channels, H, W], and let f make one number of each patch."""
    rows, columns = (range(0, size - k + 1, stride) for size in image.shape[1:])
    return torch.tensor([[f(image[:, i : i + k, j : j + k]) for j in columns] for i in rows])


def show_convolution(lesson: Lesson) -> None:
    """3.1, 3.2, 3.3, 3.5, 3.10 A CNN: filters, stride and padding, pooling, few parameters."""
    digit = load_mnist(lesson.device, lesson.quick).x_test[0].cpu()  # [1, 28, 28]
    first, second = nn.Conv2d(1, 16, kernel_size=5), nn.Conv2d(16, 1, kernel_size=5)
    maps, (weight, bias) = first(digit), second.parameters()  # [16, 24, 24], [1, 16, 5, 5], [1]
    # filter: sum over the patch of value x weight, + bias (mathematics calls it cross-correlation)
    by_hand = slide(maps, 5, 1, lambda patch: (patch * weight[0]).sum() + bias[0])
    lesson.same("3.1", "A 5 x 5 filter, slid over 16 feature maps by hand, gives PyTorch's map",
                by_hand, second(maps)[0])
    settings = ((3, 1, 0), (3, 1, 1), (5, 2, 2), (4, 3, 1))  # filter size k, stride, padding
    # size = floor((n + 2 padding - k) / stride) + 1
    sizes = [(28 + 2 * padding - k) // stride + 1 for k, stride, padding in settings]
    lesson.same("3.2", f"Filter, stride, padding turn 28 pixels into {sizes}, as the formula says",
                sizes, [nn.Conv2d(1, 1, *how)(digit).shape[1] for how in settings])
    lesson.same("3.3", "Max pooling and average pooling by hand equal PyTorch's",
                [slide(digit, 2, 2, torch.max), slide(digit, 2, 2, lambda patch: patch.sum() / 4)],
                [F.max_pool2d(digit, 2)[0], F.avg_pool2d(digit, 2)[0]])
    # one filter of 5 x 5 and one bias for each of 16 maps; a dense layer: (inputs + 1) x outputs
    shared, dense = (5 * 5 + 1) * 16, (28 * 28 + 1) * 16 * 24 * 24
    layers = first, nn.Linear(28 * 28, 16 * 24 * 24)
    lesson.same("3.5", f"All places share {shared} parameters; a dense layer instead has {dense:,}",
                [sum(p.numel() for p in layer.parameters()) for layer in layers], [shared, dense])
    noise = torch.randn(200, 1, 28, 28, requires_grad=True)  # 200, as pooling skips pixels in one
    unit = build_cnn()[:6](noise)[:, :, 1, 2].sum()  # one of block 2's 4 x 4 places, in all 64 maps
    matters = (torch.autograd.grad(unit, noise)[0] != 0).any(0)[0]  # [28, 28]
    # block 1 sees 5 + 1 = 6 pixels; block 2 takes 4 + 1 more steps of 2 pixels: 6 + 2 x 5 = 16
    lesson.same("3.10", "A neuron's receptive field after both poolings: 16 x 16 of 28 x 28 pixels",
                [matters.any(1).sum(), matters.any(0).sum(), matters.sum()], [16, 16, 256])


def show_digits(lesson: Lesson) -> None:
    """3.6, 3.8 CNNs are good at images: which digit is it? For the eye: what do filters seek?"""
    data, cnn = load_mnist(lesson.device, lesson.quick), build_cnn()
    before = lesson.models["untrained CNN"] = deepcopy(cnn).to(lesson.device)
    models = {"linear": build_mlp(784, 10), "MLP": build_mlp(784, 165, 165, 10), "CNN": cnn}
    for name, model in models.items():  # MLP and CNN: 159,000 parameters each
        right = fit(lesson, name, model, data, 600, 0.006, "digits")
        say(f"  {name:6} {right:6.2f} % right")
    lesson.shows("3.6", f"The CNN reads {right:.2f} % of {len(data.x_test):,} unseen digits",
                 right >= 99.2, full=True)
    start, filters = (net.get_parameter("0.weight")[:8, 0].detach() for net in (before, cnn))
    lesson.picture("filters", "Filters of block 1: before training, after it, and what was added",
                   [*start, *filters, *(filters - start)],
                   [f"{when} {n}" for when in ("before", "after", "added") for n in range(8)], 8)
    lesson.picture("feature-maps", "Where the first eight filters of block 1 answer to a digit",
                   predict(cnn[:2], data.x_test[:1])[0, :8], [f"filter {n}" for n in range(8)], 8)
    guess = predict(cnn, data.x_test).argmax(1)
    wrong = (guess != data.y_test).nonzero()[:30, 0]
    lesson.picture("mistakes", "Test digits that the CNN reads wrongly", data.x_test[wrong, 0],
                   [f"is {data.y_test[i]}, said {guess[i]}" for i in wrong], 10)
    say(f"  It reads data/pictures/seven.png as {read_digit(cnn, DATA / 'pictures/seven.png')}.")


def shifted(x: Tensor, pixels: int) -> Tensor:
    """Images [..., H, W] moved to the right; background comes in from the left."""
    return F.pad(x, (pixels, -pixels), value=x.min().item())  # adds on the left, cuts on the right


def show_translation(lesson: Lesson) -> None:
    """3.4 and 3.7 The same pattern is detected wherever it appears; pooling forgives small shifts.
    Training digits are centred; those of the test now move right, as this one by four pixels."""
    data, cnn = load_mnist(lesson.device, lesson.quick), lesson.models["CNN"]
    digit, right = data.x_test[0, 0], {}
    for row in torch.cat([digit, shifted(digit, 4)], dim=1)[6:26:2].tolist():
        say(curve(row, 0, 3, " .:-=+*#%@"))
    say("\n  pixels       0       1       2       3       4")
    for name in ("CNN", "MLP"):  # the CNN suffers, too: its dense layer at the end knows places
        right[name] = [accuracy(lesson.models[name], shifted(data.x_test, n), data.y_test)
                       for n in range(5)]
        say(f"  {name}   " + "".join(f"{value:8.1f}" for value in right[name]) + "   % right")
    by_cnn, by_mlp = right["CNN"][2], right["MLP"][2]
    lesson.shows("3.7", f"Moved by two pixels, {by_cnn:.1f} % are read by the CNN, {by_mlp:.1f} % "
                 "by an MLP of its size", by_cnn > by_mlp + 8, full=True)
    still, moved = (predict(cnn[:2], shifted(data.x_test[:500], n)) for n in (0, 1))  # block 1's
    lesson.same("3.4", "Feature maps move with a digit, except at the border (equivariance)",
                moved[..., 1:], still[..., :-1])  # [500, 16, 24, 23] each
    before = ((moved - still).norm() / still.norm()).item()
    after = ((cnn[2](moved) - cnn[2](still)).norm() / cnn[2](still).norm()).item()  # [2]: pooling
    lesson.shows("3.4", f"One pixel of shift changes the maps by {100 * before:.0f} % before "
                 f"pooling, {100 * after:.0f} % after: slight invariance", after < 0.85 * before)
    lesson.picture("shifted", "A digit moved to the right; % read of all test digits, moved alike",
                   [shifted(digit, n) for n in range(5)],
                   [f"CNN {right['CNN'][n]:.0f}, MLP {right['MLP'][n]:.0f}" for n in range(5)], 5)


def show_depth(lesson: Lesson) -> None:
    """1.5 Early layers hold low-level patterns, deeper ones more abstract: how well does a linear
    model, taught with few digits, read what each layer gives? (Block: convolution to pooling.)"""
    say("                   pixels   block 1   block 2   dense layer   (% right)")
    data = Data(*(part[:3_000] for part in load_mnist(lesson.device, lesson.quick)))
    right: dict[str, list[float]] = {"CNN": [], "untrained CNN": []}
    for name, found in right.items():
        net, x, x_test = lesson.models[name], data.x, data.x_test
        for layers in (net[:0], net[:3], net[3:6], net[6:9]):  # each reads on where the last ended
            x, x_test = predict(layers, x), predict(layers, x_test)
            seen = data._replace(x=(x - x.mean()) / x.std(), x_test=(x_test - x.mean()) / x.std())
            found.append(fit(lesson, "probe", build_mlp(x[0].numel(), 10), seen, 80, 0.008))
        say(f"  {name:13}" + "".join(f"{value:10.1f}" for value in found))
    dense, untrained = right["CNN"][3], right["untrained CNN"][3]
    lesson.shows("1.5", "Each trained layer is easier to read than the one before: the dense layer "
                 f"gives {dense:.1f} %, an untrained one {untrained:.1f} %",
                 right["CNN"] == sorted(set(right["CNN"])) and dense > untrained + 5, full=True)


def show_structure(lesson: Lesson) -> None:
    """2.4 An MLP has no notion of spatial structure: all digits' pixels in one shuffled order."""
    data, mlp = load_mnist(lesson.device, lesson.quick), lesson.models["MLP"]
    order, twin = torch.randperm(28 * 28, device=lesson.device), deepcopy(mlp)
    data = data._replace(x=data.x[:12_000], y=data.y[:12_000])
    x, x_test = (part.flatten(1)[:, order].view_as(part) for part in (data.x, data.x_test))
    twin[1].weight.data = mlp[1].weight[:, order]  # [1]: the first Linear
    lesson.same("2.4", "An MLP, its first layer's columns shuffled alike, gives the same answers",
                predict(twin, x_test), predict(mlp, data.x_test))
    shuffled = data._replace(x=x, x_test=x_test)
    as_is, mixed = (fit(lesson, "CNN", build_cnn(), rows, 80, 0.008) for rows in (data, shuffled))
    by_mlp = fit(lesson, "MLP", build_mlp(784, 165, 165, 10), shuffled, 80, 0.008)
    lesson.shows("2.4", f"CNNs use order: after 80 steps on 12,000 digits one reads {as_is:.1f} %, "
                 f"but {mixed:.1f} % of shuffled digits, where an MLP reads {by_mlp:.1f} %",
                 as_is >= 97.5 and mixed < min(as_is - 3, by_mlp), full=True)


class Skip(nn.Sequential):
    """A skip connection (ResNet, He et al. 2016; Add & Norm has it, too): x <- x + layers(x)."""

    def forward(self, x: Tensor) -> Any:
        return x + super().forward(x)  # type: ignore[no-untyped-call]


def show_skip(lesson: Lesson) -> None:
    """3.9 VGG, ResNet: depth needs its tricks. Twenty hidden layers, as PyTorch starts them, learn
    the letters with skip connections and without. (He initialization, larger, alone mends most.)"""
    data, reach, right = load_letters(lesson.device), [], []
    for block in (Skip, nn.Sequential):
        torch.manual_seed(lesson.seed)  # the same start for both
        hidden = [block(nn.Linear(64, 64), nn.ReLU()) for _ in range(20)]
        net = nn.Sequential(nn.Linear(16, 64), *hidden, nn.Linear(64, 26)).to(lesson.device)
        loss = F.cross_entropy(net(data.x[:512]), data.y[:512])
        gradients = torch.autograd.grad(loss, [layer.get_parameter("0.weight") for layer in hidden])
        reach.append((gradients[0].norm() / gradients[-1].norm()).item())
        right.append(fit(lesson, "20 layers", net, data, 150, 0.006))
    lesson.shows("3.9", f"With skip connections the first layer's gradient is {reach[0]:.2f} of "
                 f"the last's, without them {reach[1]:.0e}", reach[0] > 0.01 > 1e-4 > reach[1])
    lesson.shows("3.9", f"With them 20 layers learn to read {right[0]:.1f} % of unseen letters, "
                 f"without {right[1]:.1f} %", right[0] > max(90, right[1] + 30), full=True)


def read_digit(cnn: nn.Module, file: str | Path) -> int:
    """The digit in a picture file, dark on light or light on dark. As MNIST's digits it is cropped,
    scaled to 20 x 20 pixels, laid into 28 x 28, centred by its ink. ValueError: there is none."""
    grey, opaque = to_tensor(ImageOps.exif_transpose(Image.open(file)).convert("LA"))  # 0 to 1
    light = 1 - opaque * (1 - grey)  # white where the picture is transparent
    ink = (light - light[0, 0]).abs()  # the paper's grey, taken from the corner, becomes 0
    if ink.max() < 0.1:
        raise ValueError(f"no digit to be seen in {file}: draw it dark on light paper")
    ink = to_pil_image(ink * (ink > 0.3 * ink.max()) / ink.max())  # without the paper's shadows
    ink = ink.crop(ink.getbbox())
    digit = ink.resize([max(1, round(20 * side / max(ink.size))) for side in ink.size])
    x, frame = to_tensor(digit)[0], Image.new("L", (28, 28))
    # centre of the ink = sum of ink x place / sum of ink
    down = (x.sum(1) @ torch.arange(float(len(x))) / x.sum()).item()
    right = (x.sum(0) @ torch.arange(float(len(x[0]))) / x.sum()).item()
    frame.paste(digit, (14 - round(right), 14 - round(down)))
    x = (to_tensor(frame)[None] - 0.1307) / 0.3081  # [1, 1, 28, 28]
    return int(predict(cnn, x.to(next(cnn.parameters()).device)).argmax())


def demo_cnn(lesson: Lesson | None = None) -> Lesson:
    """Section 3: how a CNN reads handwritten digits, and what it owes to its filters."""
    return (lesson or Lesson()).play("3. CNN: convolutional network", show_convolution, show_digits,
                                     show_translation, show_depth, show_structure, show_skip)


# %% 4. Recurrent neural networks (RNN) and LSTM


class Recurrent(nn.Module):
    """Symbols x [B, T] -> embedding (64 learned numbers for each) -> RNN or LSTM -> output layer:
    logits [B, C] from the last state, h_T, or with every_step [B, C, T], from all h_t."""

    def __init__(self, cell: Any, symbols: int, hidden: int, every_step: bool = False) -> None:
        super().__init__()
        self.every_step, self.embedding = every_step, nn.Embedding(symbols, 64)
        self.cell = cell(64, hidden, batch_first=True)  # cell: nn.RNN or nn.LSTM
        self.output = nn.Linear(hidden, symbols)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.cell(self.embedding(x))  # h_1 ... h_T: [B, T, hidden]
        logits: Tensor = self.output(h).transpose(1, 2)  # PyTorch wants the classes second
        return logits if self.every_step else logits[:, :, -1]


def lstm_by_hand(lstm: nn.RNNBase, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM (Hochreiter and Schmidhuber 1997; its forget gate, where 1 means keep: Gers et al.
    2000) reads x [T, d]: returns every h_t and f_t, [T, hidden] each, and the last c_t."""
    w_x, w_h, b_x, b_h = lstm.parameters()  # each has rows for i, f, c and o
    w_i, w_f, w_c, w_o = torch.cat([w_h, w_x], dim=1).chunk(4)  # each acts on [h_(t-1), x_t]
    b_i, b_f, b_c, b_o = (b_x + b_h).chunk(4)
    h = c = torch.zeros_like(b_i)
    states, kept = [], []
    for x_t in x:
        h_x = torch.cat([h, x_t])
        # f_t = sigmoid(W_f [h_(t-1), x_t] + b_f): how much of the cell to keep
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


def milliseconds(work: Callable[..., object], *inputs: Tensor) -> float:
    """The processor's time for work(*inputs) on one core: a mean of ten runs, the better of two."""
    torch.set_num_threads(1)
    runs = timeit.repeat(lambda: work(*inputs), timer=time.thread_time, number=10, repeat=2)
    torch.set_num_threads(CORES)
    return 1000 * min(runs) / 10


def show_recurrence(lesson: Lesson) -> None:
    """4.1, 4.2, 4.5, 4.6 An RNN's update, an LSTM's gates; any length, but step t waits for t-1."""
    x, h, states, rnn = torch.randn(7, 3), torch.zeros(5), [], nn.RNN(3, 5)  # 7 steps of 3 inputs
    w_xh, w_hh, b_x, b_h = rnn.parameters()  # PyTorch has two biases and adds them
    for x_t in x:
        # h_t = tanh(W_hh h_(t-1) + W_xh x_t + b), with the same weights at every step
        h = torch.tanh(w_hh @ h + w_xh @ x_t + b_x + b_h)
        states.append(h)
    lesson.same("4.1", "An RNN's steps by hand equal PyTorch's", torch.stack(states), rnn(x)[0])
    lstm = nn.LSTM(3, 5)
    all_h, (_, last_c) = lstm(x)
    h, _, c = lstm_by_hand(lstm, x)
    lesson.same("4.2", "An LSTM's gates by hand give every h_t and c_T", [h, c], [all_h, last_c[0]])
    _, last_h = rnn(nn.utils.rnn.pack_sequence([x, x[:4], x[:2]]))  # [1, 3, 5]: h_T of each
    lesson.same("4.5", "Sequences of 7, 4 and 2 steps, packed together, give what each gives alone",
                list(last_h[0]), [rnn(sequence)[0][-1] for sequence in (x, x[:4], x[:2])])
    lstm, x = nn.LSTM(256, 256), torch.randn(512, 1, 256)
    waiting = milliseconds(lstm, x)  # 512 steps of one sequence
    free = milliseconds(lstm, x.transpose(0, 1))  # one step of 512 sequences
    lesson.shows("4.6", f"512 steps, one by one, take {waiting:.1f} ms, a step of 512 sequences "
                 f"{free:.1f} ms: on one core efficiency, not parallelism", waiting > 1.1 * free)


def show_gradients(lesson: Lesson) -> None:
    """4.3 Vanishing and exploding gradients: how far back does learning reach? The gradient of the
    last output for every fifth of 101 inputs, latest first (one bar higher: 370 times)."""
    networks = {"RNN": nn.RNN(64, 64), "RNN, W_hh times 4": nn.RNN(64, 64),
                "LSTM": nn.LSTM(64, 64), "LSTM, gate open": nn.LSTM(64, 64)}
    networks["RNN, W_hh times 4"].get_parameter("weight_hh_l0").data *= 4
    # rows of i, f, c, o: with a bias of 3 the forget gate starts open, as Sigmoid(3) = 0.95
    networks["LSTM, gate open"].get_parameter("bias_hh_l0").data[64:128] = 3.0
    x, left = torch.randn(101, 8, 64, requires_grad=True), []  # 8 sequences
    for name, network in networks.items():
        # dh_T/dh_t: each step between multiplies by W_hh and by tanh's slope, 1 - h^2 (in an RNN)
        h, _ = network(x)  # h_1 ... h_T: [101, 8, 64]
        (gradient,) = torch.autograd.grad(h[-1].sum(), x)  # [101, 8, 64]
        sizes = gradient.double().norm(dim=(1, 2)).flip(0)  # [101], the last step first
        left.append((sizes[-1] / sizes[0]).item())
        powers = (sizes / sizes[0]).log10()[::5].tolist()
        say(f"  {name:18} now: 1 {curve(powers, -12, 6)} 100 steps back: {left[-1]:.0e}")
    radius = torch.linalg.eigvals(networks["RNN"].get_parameter("weight_hh_l0")).abs().max()
    lesson.shows("4.3", f"An RNN's gradient vanishes (W_hh's largest eigenvalue: {radius:.2f}), "
                 "with W_hh times 4 it explodes", left[0] < 1e-6 and left[1] > 100 and radius < 1)
    lesson.shows("4.3", f"Gate open, {left[3]:.2f} of it comes back", 9 > left[3] > 0.01 > left[2])
    g, w = torch.randn(50), nn.Parameter(torch.zeros(50))
    w.grad = g.clone()
    nn.utils.clip_grad_norm_(w, max_norm=1.0)
    # clipping: g <- g x min(1, 1 / length of g)
    lesson.same("4.3", f"Clipping shortens a gradient of length {g.norm():.1f} to 1, as by hand",
                g * min(1.0, 1.0 / g.norm().item()), w.grad)


def show_memory(lesson: Lesson) -> None:
    """4.4 An LSTM remembers through its gates; a Transformer looks back directly. Of 100 symbols of
    8 kinds, which was the first (guessing: 12.5 %)? All train equally long, on 2 symbols first, at
    last on 100. (W_hh = identity at first helps an RNN, Le et al. 2015; so does slower growth.)"""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        length = min(100, 2 + 7 * (step // 20))  # 2, 9, 16 ... 100
        x = torch.randint(8, (40, length), device=lesson.device)
        return x, x[:, 0]

    test = torch.randint(8, (1_000, 100), device=lesson.device)
    lstm, opened = (Recurrent(nn.LSTM, 8, 64).to(lesson.device) for _ in range(2))
    opened.cell.get_parameter("bias_hh_l0").data[64:128] = 3.0  # forget gate open, as in 4.3
    right, gate = {}, [lstm_by_hand(lstm.cell, lstm.embedding(test[0]))[1].mean().item()]
    for name, model in {"RNN": Recurrent(nn.RNN, 8, 64), "LSTM": lstm, "LSTM, gate open": opened,
                        "attention": OneAttention(8, 100)}.items():
        rate = 0.01 if name == "attention" else 0.02  # each learns best at its own rate
        losses, seconds = train(lesson, name, model.to(lesson.device), 340, rate, batch)
        right[name] = accuracy(model, test, test[:, 0])
        say(f"  {name:16} {right[name]:6.1f} % right")
        lesson.keep(f"{name}, recall", model, f"{40 * len(losses):,} rows", seconds=seconds,
                    percent=right[name])
    lesson.shows("4.4", f"The LSTM recalls the first in {right['LSTM']:.1f} %, one layer of "
                 f"attention in {right['attention']:.1f} %, the RNN in {right['RNN']:.1f} %",
                 right["RNN"] < 30 and sorted(right.values())[1] >= 99, full=True)  # all others
    gate.append(lstm_by_hand(lstm.cell, lstm.embedding(test[0]))[1].mean().item())
    lesson.shows("4.4", f"So trained, the LSTM's forget gate, where 1 means keep, rises from "
                 f"{gate[0]:.2f} to {gate[1]:.2f}", gate[0] < 0.6 and gate[1] > 0.8, full=True)


def load_novel() -> tuple[str, str]:
    """Pride and Prejudice: (text to train on, its last tenth, unseen), each paragraph one line."""
    file = DATA / "pride-and-prejudice.txt"
    with reading(file):
        text = re.sub(r"(?<=\S)\n(?=\S)", " ", file.read_text(encoding="ascii"))
        assert len(text) > 680_000, f"only {len(text):,} characters"
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


def count_tables(seen: str, test: str, longest: int) -> list[float]:
    """What counting can do (n-grams): bits for a character after the 0, 1, 2 ... before it. Where a
    table has seen little, that of shorter contexts counts more (Witten and Bell 1991)."""
    bits, p = [], [1 / len(set(seen))] * len(test)  # each character's p; at first all equal
    counts, ring = Counter({"": len(seen)}), seen + seen[:longest]  # a ring: start again at the end
    for n in range(longest + 1):  # totals: how often n characters came; counts: with the next
        totals, counts = counts, Counter(ring[i : i + n + 1] for i in range(len(seen)))
        kinds = Counter(piece[:n] for piece in counts)  # how many different ones followed
        for i in range(longest, len(test)):
            if total := totals[test[i - n : i]]:
                kind, count = kinds[test[i - n : i]], counts[test[i - n : i + 1]]
                # p_n = (count + kinds x p_(n-1)) / (total + kinds); p[i] still is p_(n-1)
                p[i] = (count + kind * p[i]) / (total + kind)
        bits.append(mean(-math.log2(value) for value in p[longest:]))  # p = 1/8 is 3 bits
        say(f"  counts after {n} characters  {bits[n]:.2f} bits {len(counts):9,} entries")
    return bits


def show_writing(lesson: Lesson) -> None:
    """4.5 Which character comes next in Pride and Prejudice? Tables count it, an LSTM learns it. In
    its unseen tenth, how many bits (questions of yes or no) does one cost? Fewer are better."""
    seen, unseen = load_novel()
    tables = count_tables(seen, unseen[:20_001], 2 if lesson.quick else 5)
    ids, test = (torch.tensor([*text.encode()], device=lesson.device) for text in (seen, unseen))
    pieces = ids.unfold(0, 65, 1)  # every stretch of 65 characters: 64, and what follows each
    data = Data(pieces[:, :-1], pieces[:, 1:],
                test[:20_000].view(-1, 500), test[1:20_001].view(-1, 500))
    model = Recurrent(nn.LSTM, 128, 256, every_step=True)  # ASCII: all characters are below 128
    fit(lesson, "LSTM, novel", model, data, 220, 0.04, "characters", 32)
    # bits = mean of -log2 p(the character that came)
    bits = F.cross_entropy(predict(model, data.x_test), data.y_test).item() / math.log(2)
    score = lesson.scores["LSTM, novel"]
    score.update(bits=bits, learned=f"{32 * len(score['losses']):,} pieces of 64")
    say(f"  LSTM                       {bits:.2f} bits {score['parameters']:9,} parameters")
    text = torch.tensor([[*b"Elizabeth "]], device=lesson.device)  # [1, T]
    for _ in range(150):
        # temperature 0.7: softmax(logits / 0.7) makes the likely a little likelier
        p = (predict(model, text[:, -40:])[:, :, -1] / 0.7).softmax(-1)  # [1, C]
        text = torch.cat([text, torch.multinomial(p, 1)], dim=1)  # draw one, and read it, too
    say(f"  It writes: {' '.join(bytes(text[0].tolist()).decode().split())}")
    lesson.shows("4.5", f"The LSTM, trained for {score['seconds']:.1f} s, needs {bits:.2f} bits, "
                 f"counting after two characters {tables[2]:.2f}, after "
                 f"{len(tables) - 1}: {tables[-1]:.2f}", bits < min(2, tables[2]), full=True)


def demo_lstm(lesson: Lesson | None = None) -> Lesson:
    """Section 4: networks that read step by step, what they remember, and how they write."""
    return (lesson or Lesson()).play("4. Recurrent neural networks (RNN) and LSTM",
                                     show_recurrence, show_gradients, show_memory, show_writing)


# %% 5. Transformers: GPT and BERT


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v (Vaswani et al. 2017); causal: no position sees a later one.
    q [..., T, d_k], k and v [..., S, d_k] -> [..., T, d_k]."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])  # [..., T, S]: key s for query t
    if causal:
        future = torch.ones_like(scores).triu(1).bool()  # True above the diagonal
        scores = scores.masked_fill(future, -math.inf)  # which softmax makes 0
    return scores.softmax(-1) @ v


class OneAttention(nn.Module):
    """The smallest Transformer, for 4.4: one head with positions; x [B, T] -> logits [B, C]."""

    def __init__(self, symbols: int, longest: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(symbols, 64), nn.Embedding(longest, 64)
        self.qkv, self.output = nn.Linear(64, 3 * 64), nn.Linear(64, symbols)

    def forward(self, x: Tensor) -> Any:
        inputs = self.embedding(x) + self.position.weight[: x.shape[1]]  # [B, T, 64]
        q, k, v = self.qkv(inputs).chunk(3, dim=-1)  # W_Q x, W_K x, W_V x: [B, T, 64] each
        return self.output(attention(q[:, -1:], k, v)[:, 0])  # the last place, which may see all


def show_attention(lesson: Lesson) -> None:
    """5.1, 5.11, 5.12 Self-attention gives each place a weighted mean of all; cross-attention lets
    a decoder look at an encoder. Quadratic in time and memory, with FlashAttention in time only."""
    q, k, v = torch.randn(3, 4, 10, 16)  # 4 heads, 10 positions, d_k = 16
    lesson.same("5.1", "Attention by hand, with the causal mask and without, equals PyTorch's",
                [attention(q, k, v, causal) for causal in (False, True)],
                [F.scaled_dot_product_attention(q, k, v, is_causal=c) for c in (False, True)])
    cross = nn.MultiheadAttention(16, num_heads=1, bias=False)
    decoder, encoder = torch.randn(5, 16), torch.randn(9, 16)
    w_q, w_k, w_v = cross.in_proj_weight.chunk(3)
    # q = W_Q x of the decoder; k = W_K x and v = W_V x of the encoder; then an output layer
    mixed = attention(decoder @ w_q.T, encoder @ w_k.T, encoder @ w_v.T)
    lesson.same("5.11", "Cross-attention by hand, from 5 positions to 9 others, equals PyTorch's",
                cross.out_proj(mixed), cross(decoder, encoder, encoder)[0])
    sizes, bytes_kept = (128, 256, 512, 1024), []
    for n in sizes:
        x, kept = torch.randn(n, 64, requires_grad=True), list[Tensor]()
        with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: x):  # noqa: B023
            attention(x, x, x)  # kept.append gets all that backpropagation will need
        bytes_kept.append(sum({t.data_ptr(): t.nbytes for t in kept}.values()))  # each once
        say(f"{n:7} positions {milliseconds(attention, x, x, x):6.2f} ms {bytes_kept[-1]:9,} bytes")
    # n x n weights, n x 64 inputs, 4 bytes each; in time attention is n / (n + 6 d) of a block
    lesson.same("5.12", "One head on one x keeps 4 (n^2 + 64 n) bytes for n positions: quadratic",
                bytes_kept, [4 * (n**2 + 64 * n) for n in sizes])


PRETRAINED = {  # name: repository on the hub, pinned revision, folder in data/models/
    "GPT-2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", "gpt2-austen"),
    "BERT": ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
             "bert-mini"),
    "DistilBERT": ("distilbert/distilbert-base-uncased-finetuned-sst-2-english",
                   "714eb0fa89d2f80546fda750413ed43d93601a13", "distilbert-sst2-mini"),
}


@cache
def load_pretrained(name: str, source: str = "embedded", device: str = "cpu") -> tuple[Any, Any]:
    """(tokenizer: text to token ids; model). source: "embedded" or "hub". OSError: unreadable."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the import; it saves 3 s
    import transformers  # here, because it takes seconds
    from huggingface_hub import model_info, snapshot_download

    transformers.utils.logging.disable_progress_bar()
    repository, revision, small = PRETRAINED[name]
    folder = DATA / "models" / small
    if source == "hub":
        offline = True  # whatever is wrong with the network, the cache may have the model
        with suppress(Exception):  # this fails at once where a download tries for a minute
            offline = not model_info(repository, revision=revision, timeout=5)
        with reading(repository, "neither the model hub nor its cache on this disk gave it"):
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=offline,
                                            allow_patterns=["*.json", "*.txt", "model.safe*"]))
    kind = (transformers.AutoModelForSequenceClassification if name == "DistilBERT"
            else transformers.AutoModelForPreTraining)  # with the heads that it was trained with
    with reading(folder / "model.safetensors"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=True,
                                     attn_implementation="eager")  # which can show its attention
    return tokenizer, model.eval().requires_grad_(False).to(device)


def show_block(lesson: Lesson) -> None:
    """5.2 and 5.7 GPT-2's first block by hand: multi-head self-attention, Add & Norm (GPT-2 norms
    before each part, the lecture after it), feed-forward; all positions in parallel."""
    tokenizer, model = lesson.load("GPT-2")
    page = tokenizer(load_novel()[1][:950], return_tensors="pt").input_ids.to(lesson.device)
    gpt, block, ids = model.transformer, model.transformer.h[0], page[:, :200]  # [1, T]
    # input: x = token embedding + positional encoding (GPT-2 has learned its positions)
    x = gpt.wte.weight[ids] + gpt.wpe.weight[: ids.shape[1]]  # [1, T, d]
    # Norm: (x - mean) / sqrt(variance) * weight + bias; then q, k and v of all heads at once
    qkv = block.attn.c_attn(block.ln_1(x))
    q, k, v = (part.unflatten(-1, (model.config.n_head, -1)).transpose(1, 2)
               for part in qkv.chunk(3, dim=-1))  # [1, heads, T, d_k] each
    # multi-head: each head attends for itself, and their outputs are laid side by side
    heads = attention(q, k, v, causal=True).transpose(1, 2).flatten(2)  # [1, T, d]
    # Add: x <- x + W_O heads + b_O
    x = x + block.attn.c_proj(heads)
    # Norm, feed-forward (an MLP), Add: x <- x + W_2 gelu(W_1 x + b_1) + b_2; gelu: a smooth ReLU
    x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh"))
    began = time.perf_counter()
    out = model(ids, output_hidden_states=True)
    logits, middle = out.logits[0].cpu(), time.perf_counter()  # .cpu() waits until a GPU is done
    each = torch.cat([model(ids[:, :t], logits_to_keep=1).logits[0].cpu() for t in range(1, 201)])
    at_once, one_by_one = middle - began, time.perf_counter() - middle
    lesson.same("5.2", "GPT-2's first block by hand gives its own output", x, out.hidden_states[1])
    lesson.same("5.7", f"One pass over 200 tokens, {at_once:.2f} s, gives what 200 passes give, "
                f"over the first 1, 2 ... 200 of them, {one_by_one:.2f} s", logits, each)


def show_sight(lesson: Lesson) -> None:
    """5.4 and 5.13 GPT sees the past only, BERT everything: where a head of the second layer looks,
    in %, from the words on the left. ([CLS] and [SEP] are signs that BERT adds.)"""
    for name, causal in (("GPT-2", True), ("BERT", False)):
        tokenizer, model = lesson.load(name)
        ids = tokenizer("She took the note and went into the house.", return_tensors="pt").input_ids
        words = [tokenizer.decode([token]).strip()[:5] for token in ids[0].tolist()]
        maps = model(ids.to(lesson.device), output_attentions=True).attentions[1][0].cpu()
        say(f"  {name:6}" + "".join(f"{word:>6}" for word in words))
        for word, row in zip(words, maps[0].tolist(), strict=True):  # of maps [heads, T, T]
            say(f"  {word:6}" + "".join(f"{100 * p:6.0f}" if p else "     ." for p in row))
        ahead, other = 100 * (maps.triu(1).sum() / maps.sum()).item(), ids.clone()
        other[0, -3] = ids[0, 1]  # another word near the end
        moved = (model(ids.to(lesson.device))[0] - model(other.to(lesson.device))[0])[0].abs()
        earlier, later = moved[:-3].max().item(), moved[-3:].max().item()  # of [T, vocabulary]
        lesson.shows("5.13", f"{ahead:.0f} % of what {name}'s heads look at there are later words",
                     ahead == 0 if causal else ahead > 10)
        lesson.shows("5.4", f"A new word near the end moves {name}'s logits from there on by up to "
                     f"{later:.1f}, those before it by {earlier:.1g}",
                     later > 0.1 and (earlier < 1e-4 if causal else earlier > 0.1))


def show_prediction(lesson: Lesson) -> None:
    """5.5 GPT is trained to predict the next token, a piece of a word; more context helps it."""
    tokenizer, model = lesson.load("GPT-2")
    text, bits = load_novel()[1][: 4_000 if lesson.quick else 20_000], []
    ids = torch.tensor(tokenizer(text, verbose=False).input_ids, device=lesson.device)
    pieces = ids[: len(ids) // 200 * 200].view(-1, 200)
    # loss at t = -log p(x_(t+1) | x_1 ... x_t)
    p = model(pieces).logits[:, :-1].softmax(-1)  # [pieces, 199, vocabulary]
    losses = -p.gather(2, pieces[:, 1:, None])[..., 0].log()  # gather: p of the token that came
    model.loss_type = "ForCausalLM"  # what it would choose, but with a warning
    lesson.same("5.5", "GPT-2's loss by hand, each token from those before it, is the library's",
                losses[:5].mean(), model(pieces[:5], labels=pieces[:5]).loss)
    for before in (1, 4, 16, 64):  # so many before the same tokens, at places 65, 80, 95 ...
        with mixed_precision(ids):
            each = [F.cross_entropy(model(pieces[:, n - before : n], logits_to_keep=1).logits[:, 0],
                                    pieces[:, n]).item() for n in range(65, 200, 15)]
        bits.append(mean(each) / math.log(2))
    told = ", ".join(f"{value:.2f}" for value in bits)
    lesson.shows("5.5", f"With 1, 4, 16, 64 tokens before it, GPT-2 needs {told} bits for the next",
                 bits == sorted(set(bits), reverse=True), full=True)
    characters = sum(len(tokenizer.decode(piece[1:])) for piece in pieces)
    per_character = losses.sum().item() / math.log(2) / characters
    lesson.keep("GPT-2, novel", model, "hours elsewhere", bits=per_character)


def continue_text(text: str, gpt: tuple[Any, Any] | None = None, **choice: float) -> str:
    """Let GPT-2 go on with a text (its last 200 tokens) for 30 tokens, greedily, or by a choice:
    temperature=0.8 (favours the likely), top_k=20 (the likeliest 20), top_p=0.9 (the top 90 %)."""
    tokenizer, model = gpt or load_pretrained("GPT-2")
    how = {"do_sample": True, "top_k": 0, **choice} if choice else {"do_sample": False}
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids[:, -200:].to(model.device)
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=30,
                         pad_token_id=tokenizer.eos_token_id, **how)
    return " ".join(tokenizer.decode(out[0]).split())


def show_generation(lesson: Lesson) -> None:
    """5.6, 5.7 Text generation: which token is next, at temperature 1 and 0.5; ways to choose."""
    gpt = tokenizer, model = lesson.load("GPT-2")
    text = "Elizabeth looked at her sister, and"
    prompt = tokenizer(text, return_tensors="pt").to(lesson.device)
    ids, logits = prompt.input_ids, model(**prompt).logits[0, -1]  # [1, T], [vocabulary]
    for token in logits.topk(5).indices:
        shares = [100 * (logits / heat).softmax(-1)[token].item() for heat in (1, 0.5)]
        bars = " ".join(f"{share:3.0f} % {'█' * round(share / 3):20}" for share in shares)
        say(f"  {tokenizer.decode(token):10} {bars}".rstrip())
    say(f"  Greedy, always the likeliest: {continue_text(text, gpt)}")
    for name, value in {"temperature": 0.8, "top_k": 20, "top_p": 0.9}.items():
        say(f"  {name} {value}: {continue_text(text, gpt, **{name: value})}")
    began = time.perf_counter()
    for _ in range(60):
        # greedy: x_(t+1) = argmax p(x | x_1 ... x_t)
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    ids, middle = ids.cpu(), time.perf_counter()
    library = model.generate(**prompt, max_new_tokens=60, do_sample=False, eos_token_id=None)
    by_hand, cached = middle - began, time.perf_counter() - middle
    lesson.same("5.6", f"Greedy by hand gives the library's 60 tokens in {by_hand:.2f} s; with "
                f"all keys and values kept (KV cache) it needs {cached:.2f} s", ids, library)


def demo_gpt2(lesson: Lesson | None = None) -> Lesson:
    """Section 5: attention, and GPT-2, which sees the past only and so can write."""
    return (lesson or Lesson()).play("5. Transformers: attention and GPT", show_attention,
                                     show_block, show_prediction, show_generation)


def show_order(lesson: Lesson) -> None:
    """5.3 There is no recurrence, so order must be put in: BERT without positions and with them."""
    tokenizer, model = lesson.load("BERT")
    ids = tokenizer("the dog bit the man", return_tensors="pt").input_ids.to(lesson.device)
    order, moved = [0, 5, 3, 1, 2, 4, 6], []  # [CLS] and [SEP], at the ends, stay where they are
    for positions in (torch.zeros_like(ids), None):  # all words at place 0; each at its own
        states = model.bert(ids, position_ids=positions).last_hidden_state
        permuted = model.bert(ids[:, order], position_ids=positions).last_hidden_state
        moved.append((states[:, order] - permuted).abs().max().item())
    lesson.shows("5.3", f"Without positions, permuting words changes their vectors by at most "
                 f"{moved[0]:.0e}, with them by {moved[1]:.1f}", moved[0] < 1e-4 and moved[1] > 0.1)


def sentences(kind: str) -> Any:
    """Test sentences of one kind; no embedded model was trained on any of them."""
    with reading(DATA / "sentences.json"):
        return json.loads((DATA / "sentences.json").read_text(encoding="utf-8"))[kind]


def fill_mask(text: str, bert: tuple[Any, Any] | None = None) -> dict[str, float]:
    """BERT's five likeliest words for the one [MASK] in a text, with their probabilities in %."""
    tokenizer, model = bert or load_pretrained("BERT")
    ids = tokenizer(text, return_tensors="pt", truncation=True).to(model.device)
    hidden = ids.input_ids[0] == tokenizer.mask_token_id
    if hidden.sum() != 1:
        raise ValueError("write [MASK] in place of the word to be guessed, once")
    p, tokens = model(**ids).prediction_logits[0, hidden][0].softmax(-1).topk(5)
    words = tokenizer.convert_ids_to_tokens(tokens.tolist())
    return {word: round(100 * share, 1) for word, share in zip(words, p.tolist(), strict=True)}


def show_both_sides(lesson: Lesson) -> None:
    """5.8 Masked language modelling: BERT is trained to guess hidden words, from both sides."""
    bert = tokenizer, model = lesson.load("BERT")
    for sentence in sentences("masks"):
        guesses = fill_mask(sentence, bert).items()
        say(f"  {sentence}  {', '.join(f'{word} {share:.0f} %' for word, share in guesses)}")
    unseen, vocabulary = load_novel()[1], tokenizer.get_vocab()
    pieces = [s for s in re.split(r'(?<=[.!?;])["\s]+', unseen) if 8 <= len(s.split()) <= 24]
    texts, hidden, found = [], [], []
    for row in torch.randperm(len(pieces))[: 24 if lesson.quick else 192].tolist():
        words = pieces[row].lower().split()
        known = [n for n, word in enumerate(words) if word in vocabulary]
        spot = known[int(torch.randint(len(known), (1,)))]
        hidden.append(vocabulary[words[spot]])
        texts.append(" ".join([*words[:spot], "[MASK]", *words[spot + 1 :]]))
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(lesson.device)
    rows, places = (batch.input_ids == tokenizer.mask_token_id).nonzero(as_tuple=True)
    t, place = torch.arange(batch.input_ids.shape[1], device=lesson.device), places[:, None]
    for visible in (t >= 0, t <= place, (t >= place) | (t == 0)):  # both sides; left; right, [CLS]
        with mixed_precision(place):
            states = model.bert(batch.input_ids, batch.attention_mask * visible).last_hidden_state
        guess = model.cls.predictions(states[rows, places].float()).argmax(-1)  # [rows]
        found.append(int((guess.cpu() == torch.tensor(hidden)).sum()))
    found.append(hidden.count(vocabulary["the"]))  # the novel's commonest word
    lesson.shows("5.8", f"Of {len(texts)} words hidden in unseen sentences it finds {found[0]} "
                 f"from both sides, {found[1]} from the left, {found[2]} from the right; whoever "
                 f'always says "the" finds {found[3]}', found[0] > max(found[1:]), full=True)


def features(bert: Any, texts: list[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """5.9 BERT's vectors: the first 32 token ids [n, T], states [n, T, d], three vectors [n, d]:
    "[CLS]"; "mean" of its tokens; "static": the mean of the embedding's, which know no context."""
    tokenizer, model = bert
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    ids, mask = batch.input_ids.to(model.device), batch.attention_mask.to(model.device)
    with mixed_precision(ids):
        states = model.bert(ids, mask).last_hidden_state.float()
    real, words = mask[..., None], model.bert.embeddings.word_embeddings(ids)  # real: 0 for padding
    average, static = ((x * real).sum(1) / real.sum(1) for x in (states, words))
    return ids, states, {"[CLS]": states[:, 0], "mean": average, "static": static}


def show_meaning(lesson: Lesson) -> None:
    """5.9 Feature extraction: near in meaning should be near in space. A word in two texts: cosine
    if it means the same, then if not. (A sentence model taught bert-mini, not the real BERT.)"""
    bert = tokenizer, model = lesson.load("BERT")
    told, nearer, senses, triples = 0, [], sentences("senses"), sentences("paraphrases")
    for word, three in senses.items():
        ids, states, _ = features(bert, three)
        vectors = states[ids == tokenizer.convert_tokens_to_ids(word)]  # [3, d]
        # cosine(a, b) = a b / (length of a x length of b)
        near, far = F.cosine_similarity(vectors[:1], vectors[1:])
        told += int(near > far)
        say(f"  {word:8} {near:.2f}  {far:.2f}   {'right' if near > far else 'wrong'}")
    lesson.shows("5.9", f"BERT's vectors tell the senses of {told} of {len(senses)} words apart; a "
                 "word's static vector, the same in all its senses, cannot", told >= 9)
    for vectors in features(bert, sum(triples, []))[2].values():
        near, far = (F.cosine_similarity(vectors[0::3], vectors[n::3]) for n in (1, 2))
        nearer.append(int((near > far).sum()))
    lesson.shows("5.9", f"BERT's mean vector puts {nearer[1]} of {len(triples)} sentences nearer a "
                 f"paraphrase than another, [CLS] {nearer[0]}, static {nearer[2]}", nearer[1] >= 7)


def show_head(lesson: Lesson) -> None:
    """2.5 An MLP as the head on other models' embeddings: does a paragraph begin with speech?"""
    parts = [[p for p in text.split("\n") if len(p) > 40][-250:] for text in load_novel()]
    y, y_test = (torch.tensor([int(p.startswith('"')) for p in part], device=lesson.device)
                 for part in parts)
    x, x_test = (features(lesson.load("BERT"), [p.replace('"', "") for p in part])[2]
                 for part in parts)  # without the quotation marks, which would tell
    right, larger = [], 100 * y_test.bincount().max().item() / len(y_test)
    for name in ("mean", "static"):
        data, head = Data(x[name], y, x_test[name], y_test), build_mlp(x[name].shape[1], 64, 2)
        right.append(fit(lesson, f"head on BERT, {name}", head, data, 150, 0.003, "paragraphs", 64))
    lesson.shows("2.5", f"Of {len(y_test)} unseen paragraphs a head on BERT's vectors judges "
                 f"{right[0]:.1f} % rightly, one on static vectors {right[1]:.1f} %, always "
                 f"the commoner answer {larger:.1f} %", right[0] > larger + 15, full=True)


def judge(text: str, classifier: tuple[Any, Any] | None = None) -> tuple[str, float]:
    """DistilBERT, fine-tuned on film reviews: POSITIVE or NEGATIVE, and its probability in %."""
    tokenizer, model = classifier or load_pretrained("DistilBERT")
    ids = tokenizer(text, return_tensors="pt", truncation=True).to(model.device)
    p = model(**ids).logits[0].softmax(-1)
    return model.config.id2label[int(p.argmax())], round(100 * p.max().item(), 1)


def show_sentiment(lesson: Lesson) -> None:
    """5.10 Classification: a BERT, fine-tuned on film reviews, judges forty other opinions:"""
    classifier, right = lesson.load("DistilBERT"), []
    for feeling in ("POSITIVE", "NEGATIVE"):
        for sentence in sentences(feeling):
            found, share = judge(sentence, classifier)
            right.append(found == feeling)
            if not right[-1]:
                say(f"  wrong: {found} {share:.0f} %: {sentence}")
    lesson.keep("DistilBERT, opinions", classifier[1], "hours elsewhere", percent=100 * mean(right))
    lesson.shows("5.10", f"It is right about {sum(right)} of {len(right)} (the small model's card: "
                 "86.7 % of 645 film reviews)", sum(right) >= 30)  # three of four


def demo_bert(lesson: Lesson | None = None) -> Lesson:
    """Section 5: BERT, which sees both sides of a word and so can judge a text."""
    return (lesson or Lesson()).play("5. Transformers: BERT", show_order, show_sight,
                                     show_both_sides, show_meaning, show_head, show_sentiment)


# %% 6. Which one to use


def show_table(lesson: Lesson) -> None:
    """6.1 When to use which? The lecture's table, and what this run measured: seconds of training,
    % right of unseen examples, bits for an unseen character (the fewer the better)."""
    say("  MLP         tables, vectors     fully connected; no sense of space or time\n"
        "  CNN         images, grids       the same filters everywhere; pooling\n"
        "  RNN, LSTM   sequences           a state that is passed on; gates for memory\n"
        "  GPT         writing text        attention to the past\n"
        "  BERT        understanding text  attention to the whole sentence\n\n"
        "  model, data               parameters  learned from      seconds % right   bits")
    for name, score in lesson.scores.items():
        seconds, right, bits = (score.get(key, math.nan) for key in ("seconds", "percent", "bits"))
        line = f"  {name:25}{score['parameters']:11,}  {score['learned']:18}{seconds:7.1f}"
        say(f"{line}{right:8.1f}{bits:7.2f}".replace("nan", "   ").rstrip())
    if "CNN" in lesson.scores:
        cnn, mlp, linear = (lesson.scores[name]["percent"] for name in ("CNN", "MLP", "linear"))
        lesson.shows("6.1", f"On the same digits, the CNN reads {cnn:.1f} %, an MLP of its size "
                     f"{mlp:.1f} %, a linear model {linear:.1f} %", cnn > mlp > linear, full=True)


# %% 7. The run: what the lesson stands on


class Lesson:
    """How to run the demos, and what they found, also when one fails half-way: claims (passed is
    None where quick left one out), scores for the last table, models, status (0, 1 or 130)."""

    def __init__(self, device: str = "auto", quick: bool = False, models: str = "embedded",
                 seed: int = 0, figures: str | Path = DATA / "figures") -> None:
        self.device, self.quick, self.source = pick_device(device), quick, models
        self.seed, self.figures, self.status = seed, Path(figures), 0
        self.claims: list[dict[str, Any]] = []
        self.scores: dict[str, dict[str, Any]] = {}
        self.models: dict[str, Any] = {}

    def play(self, title: str, *parts: Callable[[Lesson], None]) -> Lesson:
        """Show the parts of a section, each from the same seed and under its docstring."""
        say(f"\n\n{title}\n{'=' * len(title)}")
        for part in parts:
            torch.manual_seed(self.seed)
            say("\n" + " ".join((part.__doc__ or "").split()) + "\n")
            part(self)
        return self

    def same(self, row: str, sentence: str, ours: Any, theirs: Any) -> None:
        """Claim that two results, or all of two lists, are equal: whole numbers exactly, others
        up to 1e-4 of the largest, or up to 1e-4 where all are below 1."""
        ours, theirs = (s if isinstance(s, list | tuple) else [s] for s in (ours, theirs))
        alike = len(ours) == len(theirs) > 0
        for pair in zip(ours, theirs, strict=False):
            a, b = (torch.as_tensor(side).detach().cpu() for side in pair)
            tolerance = 1e-4 * b.abs().max().clamp(min=1) if b.is_floating_point() else 0
            alike = (alike and a.shape == b.shape and bool(b.isfinite().all())
                     and bool(((a.double() - b.double()).abs() <= tolerance).all()))  # a NaN: False
        self.shows(row, sentence, alike)

    def shows(self, row: str, sentence: str, holds: bool, full: bool = False) -> None:
        """Claim a sentence that carries its numbers. full: quick has trained too little for it."""
        passed = None if full and self.quick else bool(holds)
        self.claims.append({"row": row, "sentence": sentence, "passed": passed})
        if passed is not None:
            say(f"{'✓' if passed else '✗ NOT SHOWN:'} {sentence}. ({row})")

    def keep(self, name: str, model: nn.Module, learned: str, **more: Any) -> None:
        """File a model, and its line of the last table: seconds of training, percent, bits."""
        self.models[name] = model
        self.scores[name] = {"parameters": sum(p.numel() for p in model.parameters()),
                             "learned": learned, **more}

    def load(self, name: str) -> tuple[Any, Any]:
        """(tokenizer, model) of GPT-2, BERT or DistilBERT, from where this lesson takes them."""
        if name not in self.models and self.source == "embedded":
            say(f"  ({PRETRAINED[name][2]}, a small stand-in; --models hub loads the real {name}.)")
        tokenizer, self.models[name] = load_pretrained(name, self.source, str(self.device))
        return tokenizer, self.models[name]

    def picture(self, name: str, title: str, images: Any, captions: list[str], row: int) -> None:
        """Save images, each [H, W], on one scale of grey, as a PNG with a title and captions."""
        tiles = F.interpolate(torch.stack([*images])[:, None].cpu(), 112)  # [N, 1, 112, 112]
        sheet = to_pil_image(make_grid(tiles, row, padding=24, normalize=True, pad_value=1))
        pen = ImageDraw.Draw(sheet)
        pen.text((24, 6), title, fill="black")
        for n, caption in enumerate(captions):
            pen.text((24 + 136 * (n % row), 138 + 136 * (n // row)), caption, fill="black")
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
            sheet.save(self.figures / f"{name}.png")
            say(f"  Picture: {self.figures / name}.png")
        except OSError as error:
            say(f"  No picture {name}: {error}")


def say(text: str) -> None:
    """Print text, as wide as the terminal, 100 columns at most; what it cannot show becomes a ?."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    width = max(40, min(100, shutil.get_terminal_size((100, 24)).columns))
    for line in text.encode(code, "replace").decode(code).split("\n"):
        print(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False,
                            break_long_words=False), flush=True)


def curve(values: Sequence[float], low: float, high: float, signs: str = "▁▂▃▄▅▆▇█") -> str:
    """A sign for each value, by where it lies between low and high."""
    places = (min(1, max(0, (value - low) / (high - low))) for value in values)
    return "".join(signs[round((len(signs) - 1) * place)] for place in places)


@contextmanager
def reading(path: Path | str, advice: str = "get the repository again") -> Iterator[None]:
    """Whatever goes wrong while a part of data/ is read ends in one line that names it."""
    try:
        yield
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        raise OSError(f"{path} is missing, or not whole ({problem}): {advice}") from error


DEMOS = {"mlp": demo_mlp, "cnn": demo_cnn, "lstm": demo_lstm, "gpt2": demo_gpt2, "bert": demo_bert}


def run_demo(name: str, lesson: Lesson) -> None:
    """Run one demo; what goes wrong in it is shown with its line, and the others go on."""
    here = run_demo.__code__.co_filename
    try:
        DEMOS[name](lesson)
        load_mnist.cache_clear()  # 0.2 GB that no other demo needs
    except Exception as error:
        lesson.status = 1
        frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == here][-1]
        say(f"\n✗ The demo {name} stopped: {type(error).__name__}: {error} ({Path(here).name}, "
            f"line {frame.lineno}, in {frame.name}: {frame.line})")


def parse_arguments(arguments: Sequence[str] | None) -> tuple[Lesson, list[str]]:
    """The lesson and the demos that are wanted; a wrong argument ends with status 2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=DEMOS, default=DEMOS, metavar="DEMO", help=" ".join(DEMOS))
    add("--quick", action="store_true", help="short trainings, for a first look")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    add("--models", choices=("embedded", "hub"), default="embedded", help="hub: the real, 1.3 GB")
    add("--seed", type=int, default=0, metavar="N")
    add("--figures", default=DATA / "figures", metavar="DIR", help="where pictures go")
    options = vars(parser.parse_args(arguments))
    wanted = options.pop("only")
    try:
        torch.manual_seed(options["seed"])  # refuses one that is too large
        return Lesson(**options), [name for name in DEMOS if name in wanted]
    except (ValueError, RuntimeError) as error:
        parser.exit(2, str(error).split("\n")[0] + "\n")


def main(arguments: Sequence[str] | None = None) -> Lesson:
    """The demos in the lecture's order, the table, the count; returns all that was found."""
    (lesson, names), began = parse_arguments(arguments), time.perf_counter()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: get the whole repository")
    try:
        say(f"Deep learning on {lesson.device} (CUDA: {torch.cuda.is_available()}), seed "
            f"{lesson.seed}. A line with a ✓ is a claim that this run shows.")
        for name in names:
            run_demo(name, lesson)
        lesson.play("6. Which one to use", show_table)
        passed = [claim["passed"] for claim in lesson.claims]
        say(f"\n{passed.count(True)} claims shown, {passed.count(None)} left out, "
            f"{passed.count(False)} failed, in {time.perf_counter() - began:.0f} s.")
        lesson.status = max(lesson.status, int(False in passed))
    except KeyboardInterrupt:
        say("\nInterrupted.")
        lesson.status = 130
    except OSError:  # whoever read this has seen enough, as in: ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        lesson.status = 1
    return lesson


if __name__ == "__main__":
    lesson = main([] if "get_ipython" in globals() else sys.argv[1:])  # []: in a notebook's cell
    if not ("get_ipython" in globals() or sys.flags.interactive):  # they go on, with `lesson`
        sys.exit(lesson.status)
