# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.9", "torchvision>=0.24", "transformers>=5.0"]
# ///
"""Deep learning, shown: the lecture's claims come true one by one, each with its number, on real data.

    python 03_Deep_Learning_Models.py                    everything, in the lecture's order
    python 03_Deep_Learning_Models.py --only cnn lstm    some demos
    python 03_Deep_Learning_Models.py --quick            short trainings, for a first look
    python 03_Deep_Learning_Models.py --help             all options

You will see five demos: an MLP reads a table, a CNN reads digits, an LSTM remembers and writes, GPT-2 writes, BERT
understands. Each line that begins with "ok" is a claim of the lecture, with its number there and what was measured.
Nothing is downloaded: data and three small trained language models lie in data/. If the model hub can be reached, the
real GPT-2, BERT and DistilBERT are used instead.

Left out, so that one sitting is enough: data loaders (the data fit in memory), model files of the trained demos (they
train in seconds), tuning (one setting per demo, chosen without the test data), and every trick that hides the idea.

MEASURED_CLAIM
"""

# %% 0. Tools that every demo shares
from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import operator
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import torch
    import torch.nn.functional as F
    from PIL import Image, ImageDraw
    from torch import Tensor, nn
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import check_integrity
    from tqdm import tqdm
except ImportError as missing:
    sys.exit(f"The package {missing.name} is missing. Install:  python -m pip install -r requirements.txt")

DATA = Path(globals().get("__file__", "03_Deep_Learning_Models.py")).resolve().parent / "data"
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the training pixels, between 0 and 1
RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def pick_device(wanted: str = "auto") -> torch.device:
    """The fastest device that works: CUDA, else Apple's MPS, else the CPU; or the wanted one.

    Raises ValueError, with what there is, if the wanted one is absent or broken.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    problem = "not present"
    for name in present if wanted == "auto" else [wanted]:
        try:
            if present[name]:
                torch.ones(2, 2, device=name).mm(torch.ones(2, 2, device=name)).sum().item()
                return torch.device(name)
        except RuntimeError as error:  # a driver that is too old, a GPU that another program holds
            problem = str(error).splitlines()[0]
    there = " ".join(name for name, yes in present.items() if yes and name != wanted)
    raise ValueError(f"device {wanted}: {problem}; this machine has: {there}")


def say(text: str = "", indent: int = 0) -> None:
    """Print text, wrapped to the terminal (100 columns at most); `indent` spaces before a continued line."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    for line in text.splitlines() or [""]:
        print(textwrap.fill(line, max(width, 20), subsequent_indent=" " * indent) or "", flush=True)


def curve(values: list[float]) -> str:
    """A line of at most 40 blocks, high where the values are high, with the first and the last value."""
    size = math.ceil(len(values) / 40)
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    blocks = "▁▂▃▄▅▆▇█"
    try:
        blocks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        blocks = "_.-~=+*#"
    low, high = min(means), max(means)
    bars = "".join(blocks[round(7 * (v - low) / (high - low or 1))] for v in means)
    return f"{values[0]:.3f} {bars} {values[-1]:.3f}"


@dataclass
class Lesson:
    """What one demo works with (device, options) and what it has found so far (metrics, checks, scores, figures)."""

    name: str
    device: torch.device
    options: argparse.Namespace
    metrics: dict[str, float] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    scores: list[tuple[str, str, int, float, str]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def check(self, claim: str, ours: Tensor | float, reference: Tensor | float, relation: str = "=",
              tolerance: float = 1e-4, full: bool = False) -> None:  # fmt: skip
        """Judge one claim, print it and record it. `claim` begins with the number of its row, such as "3.4".

        "=": same shape, and no two entries further apart than the tolerance (relative above 1). Other relations: two
        numbers. `full`: needs the full training, so that --quick reports the row as skipped, never as passed.
        """
        left, right = torch.as_tensor(ours).double().cpu(), torch.as_tensor(reference).double().cpu()
        if relation == "=":
            same = left.shape == right.shape
            difference = (left - right).abs().max().item() if same else math.inf
            passed = difference <= tolerance * max(1.0, right.abs().max().item())
            shown = f"largest difference {difference:.1e}"
        else:
            difference = (left - right).item()
            passed = bool(RELATIONS[relation](left, right))
            shown = f"{left.item():.4g} {relation} {right.item():.4g}"
        skipped = full and self.options.quick
        section, claim = claim.split(" ", 1)
        self.checks.append({"section": section, "claim": claim, "difference": difference,
                            "passed": None if skipped else passed})  # fmt: skip
        say(f"  {'skipped' if skipped else 'ok' if passed else 'FAILED':7} {section:>4} {claim}: {shown}", 15)

    def score(self, model: nn.Module, what: str, data: str, value: float, unit: str, seconds: float) -> None:
        """Note a line of the final table: the model, its number of parameters, its score and its training time."""
        self.metrics[f"{what}, {data} ({unit})"] = value
        parameters = sum(p.numel() for p in model.parameters())
        self.scores.append((what, data, parameters, seconds, f"{value:.2f} {unit}"))

    def picture(self, name: str, title: str, images: Iterable[Tensor], columns: int, scale: int,
                captions: Iterable[str] = ()) -> None:  # fmt: skip
        """Save images (each [H, W], from its darkest to its brightest value) as one titled PNG, `scale` times as large."""
        tiles = [(image - image.min()) / (image.max() - image.min()).clamp(min=1e-9) for image in images]
        words = list(captions) or [""] * len(tiles)
        height, width = (scale * n for n in tiles[0].shape)
        cell = (width + 4, height + (18 if any(words) else 4))
        sheet = Image.new("RGB", (cell[0] * columns, cell[1] * math.ceil(len(tiles) / columns)), "#446")
        for place, (tile, word) in enumerate(zip(tiles, words, strict=True)):
            x, y = place % columns * cell[0] + 2, place // columns * cell[1] + 2
            pixels = Image.fromarray((255 * tile.float().cpu()).byte().numpy())
            sheet.paste(pixels.resize((width, height), Image.Resampling.NEAREST), (x, y))
            ImageDraw.Draw(sheet).text((x + 1, y + height + 1), word, fill="white")
        file = Path(self.options.figures) / f"{name}.png"
        write_whole(file, lambda part: sheet.save(part, format="PNG"))
        self.figures.append(str(file))
        say(f"  picture {file}: {title}", 10)


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that it is either whole or absent: under another name first, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def fast_products(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 where the processor has units for them; training needs no more digits."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    able = {"cuda": torch.cuda.is_bf16_supported, "cpu": lambda: capabilities.get("amx_bf16", False)}
    return torch.autocast(device.type, torch.bfloat16, enabled=able.get(device.type, lambda: False)())


def train(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], steps: int, rate: float,
          title: str) -> tuple[list[float], float]:  # fmt: skip
    """The one training loop: returns the loss of every step and the seconds it took.

    batches: pairs of inputs [B, ...] and classes [B] or, one per position, [B, T] (-100: not asked for).
    Adam (Kingma and Ba 2015), with a rate that rises to `rate` and falls to 0 (one cycle: Smith and Topin 2018).
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
    device, losses, began = next(model.parameters()).device, [], time.perf_counter()
    model.train()
    for _, (x, y) in zip(tqdm(range(steps), title, leave=False, disable=None), batches, strict=False):
        with fast_products(device):
            logits = model(x)  # [B, C] or [B, T, C]
            loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    curve_of_losses = torch.stack(losses).tolist()
    if not all(map(math.isfinite, curve_of_losses)):
        raise ArithmeticError(f"the loss of {title} is no longer a number: try a smaller learning rate")
    return curve_of_losses, time.perf_counter() - began


def shuffled(x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of all the data in a new random order, again and again."""
    while True:
        for chosen in torch.randperm(len(x)).split(batch):
            yield x[chosen], y[chosen]


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The model's output for all of x, without training: eval() turns dropout off."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part) for part in x.split(1000)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The one evaluation: the percentage of rows whose likeliest class is the right one."""
    return 100 * (predict(model, x).argmax(-1) == y).double().mean().item()


# %% 1. Core ideas


def show_neuron(lesson: Lesson) -> None:
    """Section 1: a neuron by hand."""
    x, neuron = torch.randn(5), nn.Linear(5, 1)
    # z = w1 x1 + ... + wn xn + b,   y = f(z)
    z = sum(w * value for w, value in zip(neuron.weight[0], x, strict=True)) + neuron.bias[0]
    by_hand = {
        nn.ReLU: z.clamp(min=0),  # max(0, z)
        nn.Sigmoid: 1 / (1 + torch.exp(-z)),
        nn.Tanh: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
    }
    for f, y in by_hand.items():
        lesson.check(f"1.1 a neuron with {f.__name__}: by hand = nn.Linear and nn.{f.__name__}", y, f()(neuron(x))[0])


def show_backpropagation(lesson: Lesson) -> None:
    """Section 1: the chain rule, from the loss back to every weight of a two-layer network."""
    x, y = torch.randn(8, 4), torch.randint(3, (8,))  # 8 rows, 4 inputs, 3 classes
    first, second = nn.Linear(4, 5), nn.Linear(5, 3)
    hidden = torch.tanh(first(x))  # [8, 5]
    logits = second(hidden)  # [8, 3]
    F.cross_entropy(logits, y).backward()
    with torch.no_grad():
        # dL/dlogits = (softmax(logits) - one_hot(y)) / rows
        d_logits = (logits.softmax(1) - F.one_hot(y, 3)) / len(x)
        # logits = W2 hidden + b2, so dL/dW2 = dL/dlogits hidden and dL/dhidden = W2 dL/dlogits
        d_hidden = d_logits @ second.weight
        # hidden = tanh(z), so dL/dz = dL/dhidden (1 - hidden^2)
        d_z = d_hidden * (1 - hidden**2)
    by_hand = {
        "W2": (d_logits.T @ hidden, second.weight.grad), "b2": (d_logits.sum(0), second.bias.grad),
        "W1": (d_z.T @ x, first.weight.grad), "b1": (d_z.sum(0), first.bias.grad),
    }  # fmt: skip
    for name, (ours, autograd) in by_hand.items():
        lesson.check(f"1.2 dL/d{name} by the chain rule = autograd", ours, autograd)


def show_optimizers(lesson: Lesson) -> None:
    """Section 1: two steps of gradient descent and of Adam by hand."""
    start, gradients, rate = torch.randn(6), torch.randn(2, 6), 0.1
    w_sgd, w_adam, m, v = start, start, torch.zeros(6), torch.zeros(6)
    for t, g in enumerate(gradients, 1):
        # SGD: w <- w - rate g
        w_sgd = w_sgd - rate * g
        # Adam: m <- 0.9 m + 0.1 g,  v <- 0.999 v + 0.001 g^2,  w <- w - rate m' / (sqrt(v') + 1e-8),
        # where m' = m / (1 - 0.9^t) and v' = v / (1 - 0.999^t) make up for the start at zero
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w_adam = w_adam - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    for ours, library in ((w_sgd, torch.optim.SGD), (w_adam, torch.optim.Adam)):
        w = start.clone().requires_grad_()
        optimizer = library([w], lr=rate)
        for g in gradients:
            w.grad = g
            optimizer.step()
        lesson.check(f"1.3 two {library.__name__} steps by hand = torch.optim.{library.__name__}", ours, w.detach())


def show_data_hunger(lesson: Lesson, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Section 1: with few rows a deep model learns them by heart; with many it leaves the linear one behind."""
    x, y, x_test, y_test = data
    steps = 20 if lesson.options.quick else 300
    say("  rows     linear: train  test    MLP: train  test   (accuracy, %)")
    linear, deep = [], []
    for rows in (250, 1000, 4000, 16000):
        for model, rate, found in ((linear_model(16, 26), 0.05, linear), (MLP(16, 256, 26), 0.01, deep)):
            train(model.to(x.device), shuffled(x[:rows], y[:rows], 256), steps, rate, f"{rows} rows")
            found.append((accuracy(model, x[:rows], y[:rows]), accuracy(model, x_test, y_test)))
        say(f"  {rows:6,}          {linear[-1][0]:5.1f} {linear[-1][1]:5.1f}        {deep[-1][0]:5.1f} {deep[-1][1]:5.1f}")
    gains = [after[1] - before[1] for before, after in zip(deep, deep[1:], strict=False)]
    gap = [on_train - on_test for on_train, on_test in deep]
    lead = [d[1] - s[1] for d, s in zip(deep, linear, strict=True)]
    lesson.check("1.6 more data: the MLP's smallest gain from four times the rows, points", min(gains), 0, ">", full=True)
    lesson.check("1.6 overfitting: MLP's train minus test, 250 rows against 16,000", gap[0], gap[-1], ">", full=True)
    lesson.check("1.6 MLP minus linear on test rows, 16,000 against 250", lead[-1], lead[0], ">", full=True)


# %% 2. Multilayer perceptron (MLP)


class MLP(nn.Module):
    """inputs -> hidden -> hidden -> classes, y = f(Wx + b) in each hidden layer (lecture, section 2).

    x [B, ...] is flattened to [B, inputs]; returns logits [B, classes].
    """

    def __init__(self, inputs: int, hidden: int, classes: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, hidden), activation(),
            nn.Linear(hidden, hidden), activation(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]; softmax makes them probabilities, and the loss does that itself."""
        return self.layers(x)


def linear_model(inputs: int, classes: int) -> nn.Sequential:
    """The model without hidden layers that every deep one has to beat."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


def load_letters(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """UCI Letter Recognition (Slate 1991): x [16000, 16], y [16000], and 4,000 rows for testing.

    Columns are standardised with the training rows' mean and deviation: the test rows stay unseen.
    """
    with (DATA / "letter-recognition.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    y = torch.tensor([ord(row[0]) - ord("A") for row in rows], device=device)
    x = torch.tensor([[float(value) for value in row[1:]] for row in rows], device=device)
    x = (x - x[:16000].mean(0)) / x[:16000].std(0)
    return x[:16000], y[:16000], x[16000:], y[16000:]


def show_outputs(lesson: Lesson) -> None:
    """Section 2: softmax for classes, sigmoid for two, a plain number for regression, each with its loss."""
    logits, y = torch.randn(8, 5), torch.randint(5, (8,))
    # softmax_i = exp(z_i) / sum_j exp(z_j),   cross-entropy = -mean(log softmax at the right class)
    softmax = logits.exp() / logits.exp().sum(1, keepdim=True)
    by_hand = -softmax[torch.arange(8), y].log().mean()
    lesson.check("2.3 cross-entropy by hand = F.cross_entropy", by_hand, F.cross_entropy(logits, y))
    two = logits[:, :2]
    lesson.check("2.3 softmax of two = sigmoid of their difference", two.softmax(1)[:, 0],
                 torch.sigmoid(two[:, 0] - two[:, 1]))  # fmt: skip
    # MSE = mean((prediction - target)^2)
    prediction, target = torch.randn(8), torch.randn(8)
    lesson.check("2.3 MSE by hand = F.mse_loss", ((prediction - target) ** 2).mean(), F.mse_loss(prediction, target))


def show_layers(lesson: Lesson, mlp: MLP, without: MLP, x: Tensor) -> None:
    """Section 2: how many weights full connection means, and why layers need a non-linearity between them."""
    sizes = [(layer.in_features, layer.out_features) for layer in mlp.layers if isinstance(layer, nn.Linear)]
    # (inputs + 1) x outputs weights and biases for every layer
    lesson.check("2.1 parameters of the MLP = the sum of (inputs + 1) x outputs",
                 sum(p.numel() for p in mlp.parameters()), sum((n + 1) * m for n, m in sizes))  # fmt: skip
    # W3 (W2 (W1 x + b1) + b2) + b3 = (W3 W2 W1) x + (W3 W2 b1 + W3 b2 + b3): again one layer
    first, second, third = (layer for layer in without.layers if isinstance(layer, nn.Linear))
    weight = third.weight @ second.weight @ first.weight
    bias = third.weight @ (second.weight @ first.bias + second.bias) + third.bias
    lesson.check("2.2 an MLP without activations = one linear layer", F.linear(x, weight, bias).detach(),
                 predict(without, x), tolerance=1e-3)  # fmt: skip


def demo_mlp(lesson: Lesson) -> None:
    """Sections 1 and 2: how a network learns, then a table of letters read by a linear model and an MLP."""
    show_neuron(lesson)
    show_backpropagation(lesson)
    show_optimizers(lesson)
    show_outputs(lesson)
    x, y, x_test, y_test = data = load_letters(lesson.device)
    say("  Letter Recognition: 16 numbers describe a printed letter; which of the 26 is it?")
    models = {"linear": linear_model(16, 26), "MLP without activations": MLP(16, 256, 26, nn.Identity),
              "MLP": MLP(16, 256, 26)}  # fmt: skip
    found = {}
    steps = 60 if lesson.options.quick else 20 * 63  # 20 times through the 16,000 rows
    for name, model in models.items():
        losses, seconds = train(model.to(lesson.device), shuffled(x, y, 256), steps, 0.01, name)
        found[name] = accuracy(model, x_test, y_test)
        say(f"  {name}: {found[name]:.2f} % of 4,000 unseen letters right; loss {curve(losses)}", 4)
        lesson.score(model, name, "letters", found[name], "%", seconds)
    lesson.check("1.4 loss before training = ln(26 classes), within 0.2", losses[0], math.log(26), tolerance=0.2 / math.log(26))
    lesson.check("1.4 training lowers the loss: end against start", losses[-1], losses[0], "<")
    lesson.check("2.2 linear model on unseen letters, %", found["linear"], 77.5, "<=", full=True)
    lesson.check("2.2 MLP on unseen letters, %", found["MLP"], 97, ">=", full=True)
    show_layers(lesson, models["MLP"], models["MLP without activations"], x_test)
    show_data_hunger(lesson, data)
    same = predict(models["MLP"].cpu(), x_test.cpu())
    lesson.check(f"7.1 the MLP on {lesson.device} = on the CPU", predict(models["MLP"].to(lesson.device), x_test), same,
                 tolerance=1e-3)  # fmt: skip


# %% 3. Convolutional neural network (CNN)


class CNN(nn.Module):
    """[Conv -> ReLU -> Pool] x 2 -> Flatten -> Dense -> Output (lecture, section 3; LeNet: LeCun et al. 1998).

    x [B, 1, 28, 28]; returns logits [B, 10].
    """

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, 16, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(nn.Conv2d(16, 32, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU())
        self.output = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 28, 28] -> [B, 16, 14, 14] -> [B, 32, 7, 7] -> [B, 128] -> [B, 10]."""
        return self.output(self.dense(self.block2(self.block1(x))))


def load_mnist(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST (LeCun and Cortes 1998): x [60000, 1, 28, 28] and y [60000] to train, 10,000 to test.

    torchvision checks and unpacks the archives in data/MNIST/raw/, in a temporary folder: data/ may be read-only, and
    two runs never meet. A missing archive is downloaded into data/, a damaged one is named (FileNotFoundError).
    """
    raw = DATA / "MNIST" / "raw"
    for file, md5 in MNIST.resources:
        if (raw / file).exists() and not check_integrity(str(raw / file), md5):
            raise FileNotFoundError(f"{raw / file} is damaged; delete it, or restore it: git checkout {raw / file}")
    if not all((raw / file).exists() for file, _ in MNIST.resources):
        MNIST(str(DATA), download=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(raw, Path(folder) / "MNIST" / "raw")
        parts = [MNIST(folder, train=train, download=True) for train in (True, False)]
    x, x_test = (((part.data.float() / 255 - MNIST_MEAN) / MNIST_STD)[:, None].to(device) for part in parts)
    return x, parts[0].targets.to(device), x_test, parts[1].targets.to(device)


def conv2d_by_hand(image: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Slide a kernel [k, k] over an image [H, W]: at each place the product with the patch, summed."""
    k, image = len(kernel), F.pad(image, [padding] * 4)
    # size of the output = floor((n + 2 padding - k) / stride) + 1
    height, width = ((n - k) // stride + 1 for n in image.shape)
    feature_map = torch.empty(height, width)
    for i in range(height):
        for j in range(width):
            patch = image[i * stride : i * stride + k, j * stride : j * stride + k]
            feature_map[i, j] = (patch * kernel).sum()
    return feature_map


def show_convolution(lesson: Lesson, image: Tensor) -> None:
    """Section 3: filter, stride, padding, pooling and translation, on one digit [28, 28]."""
    kernel = torch.randn(3, 3)
    for k, stride, padding in ((3, 1, 0), (3, 1, 1), (5, 2, 2), (4, 3, 1)):
        kernel = torch.randn(k, k)
        by_hand = conv2d_by_hand(image, kernel, stride, padding)
        library = F.conv2d(image[None, None], kernel[None, None], stride=stride, padding=padding)[0, 0]
        lesson.check(f"3.1 a {k}x{k} filter by hand = F.conv2d", by_hand, library)
        # n' = floor((n + 2 padding - k) / stride) + 1
        lesson.check(f"3.2 kernel {k}, stride {stride}, padding {padding}: the formula = the output's size",
                     (28 + 2 * padding - k) // stride + 1, library.shape[0])  # fmt: skip
    regions = image.view(14, 2, 14, 2).transpose(1, 2).flatten(2)  # [14, 14, 4]: the 2x2 regions
    lesson.check("3.3 max pooling by hand = F.max_pool2d", regions.max(-1).values, F.max_pool2d(image[None], 2)[0])
    lesson.check("3.3 average pooling by hand = F.avg_pool2d", regions.sum(-1) / 4, F.avg_pool2d(image[None], 2)[0])


def shifted(x: Tensor, pixels: int) -> Tensor:
    """Images [..., H, W] moved to the right; the margin of a digit is empty, so that nothing is lost."""
    return x.roll(pixels, dims=-1)


def show_translation(lesson: Lesson, cnn: CNN, mlp: MLP, x: Tensor, y: Tensor) -> None:
    """Section 3: the same pattern is found wherever it is, so a shifted digit is still that digit to a CNN."""
    conv, digits, edge = cnn.block1[0], x[:500], slice(6, -6)
    with torch.inference_mode():
        lesson.check("3.4 conv(shifted digits) = shifted conv(digits), away from the border",
                     conv(shifted(digits, 3))[..., edge], shifted(conv(digits), 3)[..., edge])  # fmt: skip
        moved = [((f(shifted(digits, 1)) - f(digits)).norm() / f(digits).norm()).item()
                 for f in (lambda image: image, lambda image: cnn.block2(cnn.block1(image)))]  # fmt: skip
    lesson.check("3.4 one pixel to the right: relative change of the pooled features, against the pixels'",
                 moved[1], moved[0], "<", full=True)  # fmt: skip
    say("  digits shifted to the right by    0      1      2      3      4 pixels   (accuracy, %)")
    found = {}
    for name, model in (("CNN", cnn), ("MLP, as many parameters", mlp)):
        found[name] = [accuracy(model, shifted(x, pixels), y) for pixels in range(5)]
        say(f"  {name:29} " + " ".join(f"{value:6.2f}" for value in found[name]))
    lesson.check("3.7 two pixels to the right: CNN minus MLP, points", found["CNN"][2] - found["MLP, as many parameters"][2],
                 5, ">=", full=True)  # fmt: skip
    lesson.picture("mnist-shifted", "one digit shifted by 0 to 4 pixels", [shifted(x[0, 0], p) for p in range(5)], 5, 4)


def show_sharing(lesson: Lesson, cnn: CNN) -> None:
    """Section 3: a filter's few weights serve at every place."""
    convolution = sum(p.numel() for p in cnn.block1[0].parameters())
    dense = (28 * 28 + 1) * 16 * 28 * 28  # the same input and output, fully connected: (inputs + 1) x outputs
    lesson.check("3.5 parameters of the first convolution against a dense layer's", convolution, dense, "<")


def show_depth(lesson: Lesson, cnn: CNN, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Section 1: each layer's output is easier to classify with one linear layer than the output before it."""
    x, y, x_test, y_test = data
    stages = {"raw pixels": nn.Identity(), "block 1": cnn.block1, "block 2": cnn.block2, "dense layer": cnn.dense}
    found, steps = [], 20 if lesson.options.quick else 300
    x, y = x[:12000], y[:12000]
    for name, stage in stages.items():
        x, x_test = predict(stage, x).clone(), predict(stage, x_test).clone()
        probe = linear_model(x[0].numel(), 10).to(x.device)
        train(probe, shuffled(x, y, 256), steps, 0.003, f"probe after {name}")
        found.append(accuracy(probe, x_test, y_test))
        say(f"  a linear classifier after {name}: {found[-1]:.2f} %")
    rises = [after - before for before, after in zip(found, found[1:], strict=False)]
    lesson.check("1.5 deeper is more abstract: smallest rise from one stage to the next, points", min(rises), 0, ">",
                 full=True)  # fmt: skip


def show_structure(lesson: Lesson, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Section 2: shuffle the pixels of every image alike; the MLP does not notice, the CNN loses its advantage."""
    x, y, x_test, y_test = data
    order = torch.randperm(28 * 28, device=x.device)
    permuted = [images.flatten(1)[:, order].view(-1, 1, 28, 28) for images in (x[:20000], x_test)]
    fall, steps = {}, 10 if lesson.options.quick else 158  # twice through 20,000 digits
    for kind, rate in ((CNN, 0.01), (lambda: MLP(784, 207, 10), 0.005)):
        before, after = 0.0, 0.0
        for images, test in ((x[:20000], x_test), permuted):
            model = kind().to(x.device, memory_format=torch.channels_last)
            train(model, shuffled(images, y[:20000], 256), steps, rate, "pixels in order or shuffled")
            before, after = after, accuracy(model, test, y_test)
        fall[type(model).__name__] = before - after
        say(f"  {type(model).__name__} on 20,000 digits: {before:.2f} % with pixels in order, {after:.2f} % shuffled")
    lesson.check("2.4 shuffled pixels: what the CNN loses, points", fall["CNN"], 3, ">=", full=True)
    lesson.check("2.4 shuffled pixels: what the MLP loses or wins, points", abs(fall["MLP"]), 0.5, "<=", full=True)
    lesson.picture("mnist-permuted", "a digit, and the same with its pixels shuffled",
                   [x_test[0, 0], permuted[1][0, 0]], 2, 6)  # fmt: skip


def show_pictures(lesson: Lesson, cnn: CNN, x: Tensor, y: Tensor) -> None:
    """Section 3: what the filters look for, what they find in a digit, and where the network is wrong."""
    maps1 = predict(cnn.block1, x[:1])
    guesses = predict(cnn, x).argmax(1)
    wrong = (guesses != y).nonzero().flatten()[:40].tolist()
    filters = cnn.block1[0].weight.detach()[:, 0]
    lesson.picture("cnn-filters", "the 16 filters that block 1 learned", filters, 8, 10)
    lesson.picture("cnn-block1", "where the filters of block 1 answer to a digit", maps1[0], 8, 5)
    lesson.picture("cnn-block2", "the feature maps of block 2 for that digit", predict(cnn.block2, maps1)[0], 8, 8)
    lesson.picture("cnn-mistakes", "mistakes: what it is > what the CNN said", x[wrong, 0], 10, 2,
                   [f"{y[i].item()} > {guesses[i].item()}" for i in wrong])  # fmt: skip
    spread = filters.flatten(1).std(1) / filters.flatten(1).mean(1).abs()
    lesson.check("3.8 filters look for edges: most have light against dark (deviation over mean, median)",
                 spread.median().item(), 1, ">", full=True)  # fmt: skip


def demo_cnn(lesson: Lesson) -> None:
    """Section 3: handwritten digits, read by a linear model, an MLP and a CNN."""
    x, y, x_test, y_test = data = load_mnist(lesson.device)
    show_convolution(lesson, x[0, 0].cpu())
    say("  MNIST: 28 x 28 pixels of handwriting; which digit is it? 60,000 to train, 10,000 to test")
    models = {"linear": (linear_model(784, 10), 0.005), "MLP": (MLP(784, 207, 10), 0.005), "CNN": (CNN(), 0.01)}
    found, steps = {}, 20 if lesson.options.quick else 3 * 235  # three times through the 60,000
    for name, (model, rate) in models.items():
        model.to(lesson.device, memory_format=torch.channels_last)
        losses, seconds = train(model, shuffled(x, y, 256), steps, rate, name)
        found[name] = accuracy(model, x_test, y_test)
        say(f"  {name}: {found[name]:.2f} % of 10,000 unseen digits right; loss {curve(losses)}", 4)
        lesson.score(model, name, "MNIST", found[name], "%", seconds)
    lesson.check("3.6 CNN on unseen digits, %", found["CNN"], 99.2, ">=", full=True)
    lesson.check("6.1 the same digits: CNN against an MLP with as many parameters, %", found["CNN"], found["MLP"], ">",
                 full=True)  # fmt: skip
    cnn, mlp = models["CNN"][0], models["MLP"][0]
    show_sharing(lesson, cnn)
    show_translation(lesson, cnn, mlp, x_test, y_test)
    show_depth(lesson, cnn, data)
    show_structure(lesson, data)
    show_pictures(lesson, cnn, x_test, y_test)


# %% 4. Recurrent neural networks (RNN) and LSTM


class Recurrent(nn.Module):
    """Reads symbols one by one and answers after each: embedding -> RNN or LSTM -> logits (lecture, section 4).

    x [B, T] of whole numbers; returns logits [B, T, symbols], the last of which has seen the whole sequence.
    """

    def __init__(self, cell: type[nn.RNN | nn.LSTM], symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 64)
        self.cell = cell(64, hidden, batch_first=True)
        self.output = nn.Linear(hidden, symbols)
        if cell is nn.LSTM:
            open_forget_gate(self.cell)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T] -> h_1 ... h_T [B, T, hidden] -> [B, T, symbols]."""
        hidden_states, _ = self.cell(self.embedding(x))
        return self.output(hidden_states)


def open_forget_gate(lstm: nn.RNNBase) -> None:
    """Start with f_t near 1, so that the cell remembers before it has learned what to forget (Gers et al. 2000)."""
    with torch.no_grad():
        lstm.bias_hh_l0.chunk(4)[1].fill_(3.0)  # PyTorch's order is i, f, c, o


def show_recurrence(lesson: Lesson) -> None:
    """Section 4: the RNN's update and the LSTM's gates, in the lecture's letters."""
    x, h = torch.randn(7, 3), torch.zeros(5)  # 7 steps of 3 inputs, 5 hidden units
    rnn, states = nn.RNN(3, 5), []
    w_xh, w_hh, b = rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0 + rnn.bias_hh_l0
    for x_t in x:
        # h_t = tanh(W_hh h_(t-1) + W_xh x_t + b)
        h = torch.tanh(w_hh @ h + w_xh @ x_t + b)
        states.append(h)
    lesson.check("4.1 the vanilla update by hand = nn.RNN", torch.stack(states).detach(), rnn(x)[0].detach())

    lstm, h, c, states = nn.LSTM(3, 5), torch.zeros(5), torch.zeros(5), []
    weights = torch.cat([lstm.weight_hh_l0, lstm.weight_ih_l0], dim=1)  # W acts on [h_(t-1), x_t]
    (w_i, w_f, w_c, w_o), (b_i, b_f, b_c, b_o) = weights.chunk(4), (lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4)
    for x_t in x:
        h_x = torch.cat([h, x_t])
        # f_t = sigmoid(W_f [h_(t-1), x_t] + b_f)   how much of the cell to keep
        f = torch.sigmoid(w_f @ h_x + b_f)
        # i_t = sigmoid(W_i [h_(t-1), x_t] + b_i),   c~_t = tanh(W_c [h_(t-1), x_t] + b_c)   what to add
        i, c_new = torch.sigmoid(w_i @ h_x + b_i), torch.tanh(w_c @ h_x + b_c)
        # c_t = f_t * c_(t-1) + i_t * c~_t
        c = f * c + i * c_new
        # o_t = sigmoid(W_o [h_(t-1), x_t] + b_o),   h_t = o_t * tanh(c_t)
        h = torch.sigmoid(w_o @ h_x + b_o) * torch.tanh(c)
        states.append(h)
    library, (_, library_c) = lstm(x)
    lesson.check("4.2 the four gates by hand = nn.LSTM, h_t", torch.stack(states).detach(), library.detach())
    lesson.check("4.2 the cell by hand = nn.LSTM, c_T", c.detach(), library_c[0].detach())


def show_gradients(lesson: Lesson) -> None:
    """Section 4: what is left of the gradient after 100 steps back, for four networks."""
    rnn, lstm, large = (cell(64, 64, batch_first=True) for cell in (nn.RNN, nn.LSTM, nn.RNN))
    open_forget_gate(lstm)
    with torch.no_grad():
        large.weight_hh_l0 *= 4
    left = {}
    for name, network in (("RNN", rnn), ("LSTM", lstm), ("RNN, W_hh four times as large", large)):
        x = torch.randn(1, 101, 64, requires_grad=True)
        network(x)[0][0, -1].sum().backward()
        sizes = x.grad[0].norm(dim=1)  # [101]: how much each input matters to the last output
        left[name] = (sizes[0] / sizes[-1]).item()
        say(f"  {name}: the gradient 100 steps back is {left[name]:.1e} of the gradient here")
    lesson.check("4.3 the RNN's gradient vanishes", left["RNN"], 1e-6, "<")
    lesson.check("4.3 the LSTM's survives while its forget gate is open", left["LSTM"], 1e-2, ">")
    lesson.check("4.3 too large a W_hh makes it explode", left["RNN, W_hh four times as large"], 1e2, ">")
    nn.utils.clip_grad_norm_(large.parameters(), max_norm=1.0)
    length = torch.cat([p.grad.flatten() for p in large.parameters()]).norm()
    lesson.check("4.3 clipping: the exploded gradient has length 1 again", length, 1.0)


def recall_batches(steps: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Random symbols; after the last, the first is asked for. Sequences grow from 2 to 100 symbols, easy ones first."""
    for step in range(1, steps + 1):
        x = torch.randint(8, (64, min(100, max(2, 130 * step // steps))), device=device)
        y = torch.full_like(x, -100)  # nothing is asked before the end
        y[:, -1] = x[:, 0]
        yield x, y


def show_memory(lesson: Lesson) -> None:
    """Section 4: which symbol came first, 100 symbols ago? The same size and training for both."""
    test = torch.randint(8, (2000, 100), device=lesson.device)
    say("  100 random symbols, one of 8 each: which came first? By chance 12.5 % are right")
    steps = 20 if lesson.options.quick else 300
    found = {}
    for cell in (nn.RNN, nn.LSTM):
        model = Recurrent(cell, symbols=8, hidden=64).to(lesson.device)
        _, seconds = train(model, recall_batches(steps, lesson.device), steps, 0.01, cell.__name__)
        found[cell.__name__] = 100 * (predict(model, test)[:, -1].argmax(-1) == test[:, 0]).double().mean().item()
        lesson.score(model, cell.__name__, "recall", found[cell.__name__], "%", seconds)
    lesson.check("4.4 the LSTM recalls the first of 100 symbols, %", found["LSTM"], 99, ">=", full=True)
    lesson.check("4.4 the RNN of the same size and training, %", found["RNN"], 70, "<", full=True)


def show_lengths(lesson: Lesson) -> None:
    """Section 4: sequences of several lengths in one batch give what each gives alone."""
    lstm, lengths = nn.LSTM(3, 5, batch_first=True), [7, 4, 2]
    sequences = [torch.randn(n, 3) for n in lengths]
    padded = nn.utils.rnn.pad_sequence(sequences, batch_first=True)  # [3, 7, 3], filled up with zeros
    packed = nn.utils.rnn.pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True)
    last = lstm(packed)[1][0][0]  # [3, 5]: h_T of each
    alone = torch.stack([lstm(sequence[None])[0][0, -1] for sequence in sequences])
    lesson.check("4.5 three lengths padded and packed = each sequence alone", last.detach(), alone.detach())


def load_novel() -> tuple[str, str]:
    """Pride and Prejudice as (text to train on, its last tenth, unseen); line breaks inside paragraphs are joined."""
    text = (DATA / "pride-and-prejudice.txt").read_text(encoding="utf-8")
    text = re.sub(r"(?<=\S)\n(?=\S)", " ", text)
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


def excerpts(ids: Tensor, length: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random pieces of a text: x [B, T] and, as y [B, T], the same one symbol further on."""
    while True:
        start = torch.randint(len(ids) - length, (batch, 1), device=ids.device)
        piece = ids[start + torch.arange(length + 1, device=ids.device)]
        yield piece[:, :-1], piece[:, 1:]


def write(model: Recurrent, characters: str, prompt: str, length: int) -> str:
    """Let a next-character model write on: it draws a character, reads it, draws the next."""
    device = model.output.weight.device
    x, state, text = torch.tensor([[characters.index(c) for c in prompt]], device=device), None, prompt
    with torch.inference_mode():
        for _ in range(length):
            hidden_states, state = model.cell(model.embedding(x), state)
            chances = (model.output(hidden_states[:, -1]) / 0.7).softmax(-1)  # temperature 0.7: a little careful
            x = torch.multinomial(chances, 1)
            text += characters[x.item()]
    return text


def show_writing(lesson: Lesson) -> None:
    """Section 4: a model that says which character comes next, and so can write."""
    seen, unseen = load_novel()
    characters = "".join(sorted(set(seen + unseen)))
    ids, test = (torch.tensor([characters.index(c) for c in text], device=lesson.device) for text in (seen, unseen))
    steps = 20 if lesson.options.quick else 400
    model = Recurrent(nn.LSTM, len(characters), hidden=256).to(lesson.device)
    losses, seconds = train(model, excerpts(ids, 100, 32), steps, 0.01, "next character")
    test = test[:20001]
    logits = predict(model, test[:-1].view(-1, 500)).flatten(0, 1)
    # bits a character = mean of -log2 p(the character that came)
    bits = F.cross_entropy(logits, test[1:]).item() / math.log(2)
    frequency = torch.bincount(ids, minlength=len(characters)).clamp(min=1) / len(ids)
    by_frequency = -frequency[test[1:]].log2().mean().item()
    say(f"  Pride and Prejudice, character by character; loss {curve(losses)}", 4)
    say(f"  It writes: {write(model, characters, 'Elizabeth ', 200)}", 4)
    lesson.score(model, "LSTM", "novel", bits, "bits/character", seconds)
    lesson.check("4.5 next character on unseen pages, bits: LSTM against guessing by frequency", bits,
                 by_frequency - 1, "<", full=True)  # fmt: skip


def fastest(work: Callable[[], Any], repeats: int = 5) -> float:
    """The shortest of several timings in seconds: other programs can only make it longer."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def show_waiting(lesson: Lesson) -> None:
    """Section 4: step t waits for step t-1; attention computes all positions at once."""
    lstm, x = nn.LSTM(64, 64, batch_first=True), torch.randn(1, 512, 64)

    def one_by_one() -> None:
        state = None
        for t in range(x.shape[1]):
            _, state = lstm(x[:, t : t + 1], state)

    with torch.inference_mode():
        steps = fastest(one_by_one, 3)
        at_once = fastest(lambda: F.scaled_dot_product_attention(x, x, x))
    say(f"  512 positions: {1000 * steps:.1f} ms for an LSTM step by step, {1000 * at_once:.1f} ms for attention")
    lesson.check("4.6 step by step takes longer than all at once, times", steps / at_once, 1, ">")


def demo_lstm(lesson: Lesson) -> None:
    """Section 4: networks that read step by step: one that remembers, one that writes."""
    show_recurrence(lesson)
    show_gradients(lesson)
    show_lengths(lesson)
    show_memory(lesson)
    show_writing(lesson)
    show_waiting(lesson)


# %% 5. Transformers: GPT and BERT

TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
PRETRAINED = {  # name: repository, pinned revision, files, the folder below data/models/ that stands in for it
    "GPT-2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e",
              ("config.json", "generation_config.json", *TOKENIZER, "vocab.json", "merges.txt"), "gpt2-austen"),
    "BERT": ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
             ("config.json", *TOKENIZER, "vocab.txt"), "bert-mini"),
    "DistilBERT": ("distilbert/distilbert-base-uncased-finetuned-sst-2-english",
                   "714eb0fa89d2f80546fda750413ed43d93601a13",
                   ("config.json", "tokenizer_config.json", "vocab.txt"), "distilbert-sst2-mini"),
}  # fmt: skip


@functools.lru_cache
def hub_problem(url: str, seconds: float = 3.0) -> str:
    """Why the model hub cannot be used; "" if it answers in time as a model hub does.

    Asked once per run, and in a thread of its own, because looking up a name has no time limit.
    """
    from huggingface_hub import get_hf_file_metadata

    answer = [f"no answer within {seconds:.0f} seconds"]

    def ask() -> None:
        try:
            found = get_hf_file_metadata(url, timeout=seconds)
            answer[0] = "" if found.commit_hash and found.etag else "what answers is not a model hub"
        except Exception as error:  # whatever the network does, the embedded models are there
            answer[0] = (str(error).splitlines() or [""])[0] or type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return answer[0]


def hub_folder(name: str) -> Path:
    """The real model's files at the pinned revision: from the local cache, else downloaded. ConnectionError if neither."""
    from huggingface_hub import hf_hub_download, hf_hub_url, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, revision, files, _ = PRETRAINED[name]
    files = (*files, "model.safetensors")
    cached = [try_to_load_from_cache(repository, file, revision=revision) for file in files]
    if all(cached) and isinstance(cached[-1], str):
        return Path(cached[-1]).parent
    if is_offline_mode():
        raise ConnectionError("HF_HUB_OFFLINE is set")
    gpt2, pinned, *_ = PRETRAINED["GPT-2"]
    if problem := hub_problem(hf_hub_url(gpt2, "model.safetensors", revision=pinned)):
        raise ConnectionError(problem)
    weights = ""
    for file in files:
        try:
            weights = hf_hub_download(repository, file, revision=revision, etag_timeout=3)
        except EntryNotFoundError:  # a file that this revision does not have
            if file == files[-1]:
                raise
    return Path(weights).parent


def load_pretrained(name: str, kind: str, mode: str) -> tuple[Any, Any]:
    """(tokenizer, model) by the name of its class: the real one if it is cached or can be fetched, else the embedded.

    Only safetensors are read, no code of a repository is run. mode "hub" raises ConnectionError if it must be embedded.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder, why = DATA / "models" / PRETRAINED[name][3], "as asked"
    if mode != "embedded":
        try:
            folder, why = hub_folder(name), "the real one"
        except Exception as error:  # no network, no space, a proxy's page: the lesson goes on with the small model
            if mode == "hub":
                raise ConnectionError(f"{name} cannot be had from the model hub ({error})") from error
            why = f"model hub: {(str(error).splitlines() or [''])[0]}"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", use_safetensors=True
    )
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(f"  {name}: {PRETRAINED[name][0] if why == 'the real one' else folder.name}, {size:.1f} million parameters ({why})", 4)
    return tokenizer, model.eval()


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v (Vaswani et al. 2017). q [..., T, d_k], k and v [..., S, d_k] -> [..., T, d_k]."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])  # [..., T, S]: how well query t fits key s
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -math.inf)  # softmax makes these 0
    return scores.softmax(-1) @ v


def show_attention(lesson: Lesson) -> None:
    """Section 5: attention by hand, also from a decoder to an encoder, and what it costs."""
    q, k, v = torch.randn(3, 4, 10, 16)  # 4 heads, 10 positions, d_k = 16
    library = F.scaled_dot_product_attention
    lesson.check("5.1 attention by hand = F.scaled_dot_product_attention", attention(q, k, v), library(q, k, v))
    lesson.check("5.1 the same with the causal mask", attention(q, k, v, causal=True), library(q, k, v, is_causal=True))

    cross = nn.MultiheadAttention(16, num_heads=1, bias=False, batch_first=True).requires_grad_(False)
    decoder, encoder = torch.randn(1, 5, 16), torch.randn(1, 9, 16)
    w_q, w_k, w_v = cross.in_proj_weight.chunk(3)
    # q = W_Q x from the decoder; k = W_K x and v = W_V x from the encoder
    by_hand = attention(decoder @ w_q.T, encoder @ w_k.T, encoder @ w_v.T) @ cross.out_proj.weight.T
    lesson.check("5.11 cross-attention, 5 queries and 9 keys, by hand = nn.MultiheadAttention",
                 by_hand, cross(decoder, encoder, encoder)[0])  # fmt: skip

    lengths, seconds, megabytes = [512, 1024, 2048, 4096], [], []
    for n in lengths:
        x = torch.randn(n, 64)
        seconds.append(fastest(lambda x=x: attention(x, x, x)))
        megabytes.append((x @ x.T).nbytes / 1e6)
    cost = [f"n = {n}: {1000 * s:.1f} ms, {m:.0f} MB" for n, s, m in zip(lengths, seconds, megabytes, strict=True)]
    say(f"  attention over n positions: {'; '.join(cost)}", 4)
    # cost ~ n^p, so p is the slope of log(cost) over log(n)
    for what, cost in (("time", seconds), ("memory of the scores", megabytes)):
        slope = math.log(cost[-1] / cost[0]) / math.log(lengths[-1] / lengths[0])
        lesson.check(f"5.12 {what} grows with n to the power of 2, within 0.5", slope, 2, tolerance=0.25)


def show_block(lesson: Lesson, model: Any, ids: Tensor) -> None:
    """Section 5: GPT-2's first block, recomputed from its own weights. GPT-2 puts Norm before, not after, each part."""
    block = model.transformer.h[0]
    states = model(ids, output_hidden_states=True).hidden_states

    def norm(x: Tensor, layer: Any) -> Tensor:
        # LayerNorm(x) = (x - mean) / sqrt(variance + eps) * weight + bias, for each position
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    def heads(x: Tensor) -> Tensor:  # [1, T, d] -> [1, heads, T, d_k]
        return x.unflatten(-1, (model.config.n_head, -1)).transpose(1, 2)

    x = states[0]  # [1, T, d]: token embeddings + positions
    q, k, v = (norm(x, block.ln_1) @ block.attn.c_attn.weight + block.attn.c_attn.bias).chunk(3, dim=-1)
    mixed = attention(heads(q), heads(k), heads(v), causal=True).transpose(1, 2).flatten(2)  # concatenated heads
    # x <- x + W_O concat(heads)
    x = x + mixed @ block.attn.c_proj.weight + block.attn.c_proj.bias
    # x <- x + W_2 gelu(W_1 LayerNorm(x) + b_1) + b_2
    inner = F.gelu(norm(x, block.ln_2) @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
    x = x + inner @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
    lesson.check("5.2 a whole block of GPT-2 by hand = its hidden states", x, states[1], tolerance=1e-3)


def change_last_word(model: Any, ids: Tensor) -> float:
    """How far the answers at all earlier positions move when the last word (token -2 of BERT's) becomes another."""
    place = -1 if model.config.model_type == "gpt2" else -2  # BERT's last token is [SEP]
    other = ids.clone()
    other[0, place] = ids[0, 1]
    return (model(ids)[0][0, :place] - model(other)[0][0, :place]).abs().max().item()


def token_losses(model: Any, ids: Tensor) -> Tensor:
    """-log p(token | the tokens before it) in nats for every token of ids [1, T] but the first: [T - 1]."""
    return F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")


def show_prediction(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 5: GPT-2 predicts the next token; a sentence is likelier than its words in another order."""
    start = tokenizer.eos_token_id  # GPT-2's sign for the beginning of a text
    _, unseen = load_novel()
    sentences = [s for s in re.split(r"(?<=[.!?;])\s+", unseen) if 8 <= len(s.split()) <= 16][:30]
    ids = torch.tensor([[start, *tokenizer(sentences[0]).input_ids]], device=model.device)
    # loss = -mean over t of log p(x_t | x_1 ... x_(t-1))
    chances = model(ids).logits[0, :-1].softmax(-1)  # [T - 1, vocabulary]
    by_hand = -sum(chances[t, token].log() for t, token in enumerate(ids[0, 1:])) / len(chances)
    lesson.check("5.5 cross-entropy of a sentence by hand = F.cross_entropy", by_hand, token_losses(model, ids).mean())
    likelier = 0
    for sentence in sentences:
        words = sentence.split()
        shuffled_words = [words[i] for i in torch.randperm(len(words))]
        both = [torch.tensor([[start, *tokenizer(" ".join(w)).input_ids]], device=model.device) for w in (words, shuffled_words)]
        likelier += (token_losses(model, both[0]).sum() < token_losses(model, both[1]).sum()).item()
    lesson.check("5.5 sentences that are likelier than their words shuffled, %", 100 * likelier / len(sentences), 90, ">=")


def show_bits(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 6: the pages that the LSTM was tested on, in the same unit. Every token sees half a window or more."""
    text = load_novel()[1][: 2000 if lesson.options.quick else 20000]
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text, verbose=False).input_ids]], device=model.device)
    size, nats = min(model.config.n_positions, 512), 0.0
    for start in range(0, max(1, ids.shape[1] - size // 2), size // 2):
        losses = token_losses(model, ids[:, start : start + size])
        nats += losses[0 if start == 0 else size // 2 - 1 :].sum().item()
    lesson.score(model, "GPT-2", "novel", nats / math.log(2) / len(text), "bits/character", 0.0)


def show_generation(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 5: the next word's chances, and four ways to choose from them."""
    prompt = tokenizer("Elizabeth looked at her sister, and", return_tensors="pt").to(model.device)
    logits = model(**prompt).logits[0, -1]  # [vocabulary]
    chances, tokens = logits.softmax(-1).topk(5)
    say(f'  "{tokenizer.decode(prompt.input_ids[0])}" goes on with: '
        + ", ".join(f'"{tokenizer.decode([t])}" {100 * p:.0f} %' for t, p in zip(tokens, chances, strict=True)), 4)  # fmt: skip
    ways = {"greedy": {}, "temperature 0.8": {"temperature": 0.8}, "top-k 20": {"top_k": 20}, "top-p 0.9": {"top_p": 0.9}}
    for way, setting in ways.items():
        plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if setting else {}
        out = model.generate(**prompt, max_new_tokens=30, do_sample=bool(setting), pad_token_id=tokenizer.eos_token_id,
                             **{**plain, **setting})  # fmt: skip
        say(f"  {way}: {' '.join(tokenizer.decode(out[0]).split())}", 4)
    # greedy: x_(t+1) = argmax p(x | x_1 ... x_t); the cache keeps the keys and values of x_1 ... x_t
    by_hand = prompt.input_ids
    for _ in range(30):
        by_hand = torch.cat([by_hand, model(by_hand).logits[:, -1:].argmax(-1)], dim=1)
    settings = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": tokenizer.eos_token_id, "eos_token_id": None}
    lesson.check("5.6 greedy by hand, the likeliest token each time = generate()", by_hand, model.generate(**prompt, **settings))
    # top-p: the fewest likeliest tokens whose chances add up to p, and no others
    order = logits.sort(descending=True)
    kept = order.values.softmax(-1).cumsum(-1) - order.values.softmax(-1) < 0.9
    from transformers import TopPLogitsWarper

    library = TopPLogitsWarper(0.9)(prompt.input_ids, logits[None])[0].isfinite().sum()
    lesson.check("5.6 how many tokens top-p 0.9 leaves, by hand = transformers", kept.sum(), library)
    texts, seconds = [], []
    for cache in (True, False):
        began = time.perf_counter()
        texts.append(model.generate(**prompt, **settings | {"max_new_tokens": 64}, use_cache=cache))
        seconds.append(time.perf_counter() - began)
    lesson.check("5.7 64 tokens with the key-value cache = without it", texts[0], texts[1])
    say(f"  64 tokens took {seconds[0]:.2f} s with the cache, {seconds[1]:.2f} s without")


def show_attention_maps(lesson: Lesson, name: str, tokenizer: Any, model: Any) -> Tensor:
    """Section 5: where each head of the second layer looks, as pictures [heads, T, T]: row t is the view of token t."""
    ids = tokenizer("Elizabeth took the letter and walked into the garden.", return_tensors="pt").to(model.device)
    maps = model(**ids, output_attentions=True).attentions[1][0]
    say(f"  tokens: {' '.join(tokenizer.convert_ids_to_tokens(ids.input_ids[0].tolist()))}".replace("\u0120", "_"), 4)
    lesson.picture(f"{name}-attention", f"where each head of {name}'s second layer looks", maps, 4, 10)
    lesson.check(f"5.13 {name}: what each token pays out adds up to 1", maps.sum(-1), torch.ones(maps.shape[:2]))
    return maps


@torch.inference_mode()
def demo_gpt2(lesson: Lesson) -> None:
    """Section 5: a Transformer that sees only the past, and so can write."""
    show_attention(lesson)
    tokenizer, model = load_pretrained("GPT-2", "GPT2LMHeadModel", lesson.options.models)
    model.to(lesson.device)
    ids = tokenizer("It is a truth universally acknowledged", return_tensors="pt").input_ids.to(lesson.device)
    show_block(lesson, model, ids)
    lesson.check("5.4 GPT-2 sees the past only: another last word, earlier answers move by", change_last_word(model, ids), 0.0)
    show_prediction(lesson, tokenizer, model)
    show_generation(lesson, tokenizer, model)
    show_bits(lesson, tokenizer, model)
    maps = show_attention_maps(lesson, "gpt2", tokenizer, model)
    lesson.check("5.13 gpt2: nothing above the diagonal, the future", maps.triu(1), torch.zeros_like(maps))


MASKS = {  # sentence: words that fit
    "She opened the [MASK] and walked in.": "door gate",
    "He drank a cup of [MASK].": "tea coffee milk water wine",
    "They were married and had two [MASK].": "children daughters sons kids babies boys girls",
    "She sat down and wrote a long [MASK] to her sister.": "letter note message story",
    "The man is playing a [MASK].": "guitar flute piano game violin",
    "I am very [MASK] to see you.": "happy glad pleased sorry anxious",
}
SENSES = {  # word: twice in one sense, once in another
    "bank": ("He sat on the bank of the river.", "They walked along the bank of the stream.", "She put her money in the bank."),
    "bat": ("He hit the ball with a bat.", "The player swung his bat at the ball.", "A bat flew out of the dark cave."),
    "spring": ("The flowers bloom in spring.", "It rains a lot in spring.", "The metal spring in the watch is broken."),
    "letter": ("She wrote a letter to her mother.", "He sent me a letter last week.", "The first letter of the alphabet is A."),
}
PARAPHRASES = [  # a sentence, the same in other words, and a stranger with a word in common
    ("A man is playing a guitar.", "Someone plays the guitar.", "A man is cutting an onion."),
    ("The child is sleeping in the bed.", "A kid is asleep in bed.", "The child is riding a horse."),
    ("It is raining heavily today.", "There is a lot of rain today.", "The shop is closed today."),
    ("She was angry with her brother.", "Her brother had made her furious.", "She sold the house to her brother."),
    ("The train arrived late.", "The train was not on time.", "He bought a ticket for the museum."),
    ("The doctor gave him some medicine.", "He got a drug from the physician.", "The doctor owns a large boat."),
]
FEELINGS = {  # sentences about other things than films: is the feeling positive?
    "The soup was delicious and the waiter was very friendly.": True,
    "I love this phone, it works perfectly.": True,
    "What a wonderful day at the beach!": True,
    "The team played brilliantly and won.": True,
    "The room was dirty and the bed was terrible.": False,
    "My new shoes fell apart, what a waste of money.": False,
    "The train was late again and nobody helped us.": False,
    "This is the worst coffee that I have ever had.": False,
}


def sentence_features(tokenizer: Any, model: Any, sentences: list[str]) -> tuple[Tensor, Tensor]:
    """BERT's last hidden states of each sentence as two vectors [n, d]: that of [CLS], and the mean of all tokens."""
    cls, means = [], []
    for start in range(0, len(sentences), 50):
        batch = tokenizer(sentences[start : start + 50], padding=True, truncation=True, max_length=64, return_tensors="pt")
        states = model.bert(**batch.to(model.device)).last_hidden_state  # [B, T, d]
        real = batch.attention_mask[..., None]  # [B, T, 1]: 1 for a token, 0 for padding
        cls.append(states[:, 0])
        means.append((states * real).sum(1) / real.sum(1))
    return torch.cat(cls), torch.cat(means)


def show_order(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 5: attention alone has no order; the positions put it in."""
    ids = tokenizer("the dog bit the man in the park", return_tensors="pt").input_ids.to(model.device)
    order = torch.randperm(ids.shape[1], device=model.device)
    places = {"without positions": torch.zeros_like(ids), "with positions": torch.arange(ids.shape[1], device=model.device)[None]}
    for name, positions in places.items():
        states = model.bert(ids, position_ids=positions).last_hidden_state
        permuted = model.bert(ids[:, order], position_ids=positions).last_hidden_state
        apart = (states[:, order] - permuted).abs().max().item()
        relation, bound = ("<", 1e-3) if name == "without positions" else (">", 0.1)
        lesson.check(f"5.3 {name}, permuted tokens against permuted outputs: largest difference", apart, bound, relation)


def show_masks(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 5: BERT fills in what is hidden, reading both sides of it."""
    fitting = 0
    for sentence, words in MASKS.items():
        ids = tokenizer(sentence, return_tensors="pt").to(model.device)
        place = ids.input_ids[0].tolist().index(tokenizer.mask_token_id)
        chances, tokens = model(**ids).prediction_logits[0, place].softmax(-1).topk(5)
        guesses = tokenizer.convert_ids_to_tokens(tokens.tolist())
        fitting += bool(set(guesses) & set(words.split()))
        say(f"  {sentence} " + ", ".join(f"{g} {100 * p:.0f} %" for g, p in zip(guesses, chances, strict=True)), 4)
    lesson.check(f"5.8 sentences of {len(MASKS)} with a fitting word among the five likeliest", fitting, len(MASKS) / 2, ">=")


def show_features(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 5: near in meaning is near in space, for sentences and for one word in two senses."""
    for name, vectors in zip(("[CLS]", "mean"), sentence_features(tokenizer, model, [s for row in PARAPHRASES for s in row]), strict=True):
        same, other = (F.cosine_similarity(vectors[0::3], vectors[i::3]) for i in (1, 2))
        say(f"  {name} vectors: cosine {same.mean():.2f} to a paraphrase, {other.mean():.2f} to a stranger")
        if name == "mean":
            lesson.check(f"5.9 of {len(same)} sentences, nearer to their paraphrase than to a stranger", (same > other).sum(), 5, ">=")
    nearer = 0
    for word, sentences in SENSES.items():
        ids = [tokenizer(sentence, return_tensors="pt").to(model.device) for sentence in sentences]
        token = tokenizer.convert_tokens_to_ids(word)
        first, second, third = (model.bert(**i).last_hidden_state[0, i.input_ids[0].tolist().index(token)] for i in ids)
        same, other = (F.cosine_similarity(first, vector, dim=0).item() for vector in (second, third))
        say(f'  "{word}": cosine {same:.2f} in the same sense, {other:.2f} in another')
        nearer += same > other
    lesson.check(f"5.9 of {len(SENSES)} words in two senses, the same sense nearer", nearer, 3, ">=")


def show_head(lesson: Lesson, tokenizer: Any, model: Any) -> None:
    """Section 2: a small MLP on BERT's features of a paragraph, without its quotation marks: is it speech or story?"""
    parts, rows = load_novel(), (60, 40) if lesson.options.quick else (400, 200)
    data = []
    for text, n in zip(parts, rows, strict=True):
        paragraphs = [p for p in re.split(r"\n+", text) if len(p) > 40]
        chosen = [paragraphs[i] for i in torch.randperm(len(paragraphs))[:n]]
        _, features = sentence_features(tokenizer, model, [p.replace('"', "") for p in chosen])
        data += [features.clone(), torch.tensor([p.startswith('"') for p in chosen], device=model.device).long()]
    x, y, x_test, y_test = data
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone(), y.clone()
        head = MLP(x.shape[1], 64, 2).to(x.device)
        _, seconds = train(head, shuffled(x, y, 64), 100, 0.003, "head on BERT")
    right, majority = accuracy(head, x_test, y_test), 100 * y_test.bincount().max().item() / len(y_test)
    lesson.score(head, "MLP on BERT", "speech or story", right, "%", seconds)
    lesson.check("2.5 a head on BERT's features tells speech from story, %, against the majority", right, majority, ">",
                 full=True)  # fmt: skip


def show_sentiment(lesson: Lesson) -> None:
    """Section 5: a fine-tuned classifier, through the pipeline that people use."""
    import transformers

    tokenizer, model = load_pretrained("DistilBERT", "DistilBertForSequenceClassification", lesson.options.models)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device=lesson.device)
    right = 0
    for sentence, positive in FEELINGS.items():
        found = classify(sentence)[0]
        right += (found["label"] == "POSITIVE") == positive
        say(f"  {found['label']} {100 * found['score']:.0f} %: {sentence}", 4)
    lesson.score(model, "DistilBERT", "feelings", 100 * right / len(FEELINGS), "%", 0.0)
    lesson.check("5.10 feelings of sentences that it never saw, right in %", 100 * right / len(FEELINGS), 75, ">=")


@torch.inference_mode()
def demo_bert(lesson: Lesson) -> None:
    """Section 5: a Transformer that sees the whole sentence, and so can judge it."""
    tokenizer, model = load_pretrained("BERT", "BertForPreTraining", lesson.options.models)
    model.to(lesson.device)
    ids = tokenizer("It is a truth universally acknowledged", return_tensors="pt").input_ids.to(lesson.device)
    lesson.check("5.4 BERT sees everything: another last word, earlier answers move by", change_last_word(model, ids), 0.1, ">")
    show_order(lesson, tokenizer, model)
    show_masks(lesson, tokenizer, model)
    show_features(lesson, tokenizer, model)
    maps = show_attention_maps(lesson, "bert", tokenizer, model)
    lesson.check("5.13 bert: attention above the diagonal, to the words that follow", maps.triu(1).sum(), 0, ">")
    show_head(lesson, tokenizer, model)
    show_sentiment(lesson)


# %% 6. Which one to use

BEST_FOR = {  # the lecture's table: what each is best for, and its main idea
    "MLP": ("tables, vectors", "fully connected; no sense of space or time"),
    "CNN": ("images, grids", "convolutions and pooling; the same wherever it is"),
    "LSTM": ("sequences", "recurrence; gates keep a long memory"),
    "GPT-2": ("generating text", "self-attention to the past, all at once"),
    "DistilBERT": ("understanding text", "self-attention to the whole sentence"),
}


def show_table(lessons: list[Lesson]) -> None:
    """Section 6: the lecture's table, with this run's own numbers."""
    say("\n6. Which one to use\n")
    for model, (best, idea) in BEST_FOR.items():
        say(f"  {model:10} best for {best}: {idea}", 13)
    say("\n  on the same data     model                    parameters   trained in   score")
    lines = sorted((score for lesson in lessons for score in lesson.scores), key=lambda line: line[1])
    for what, data, parameters, seconds, score in lines:
        trained = f"{seconds:.1f} s" if seconds else "before"
        say(f"  {data:20} {what:24} {parameters:10,} {trained:>12}   {score}")


# %% 7. The run

DEMOS: dict[str, tuple[str, Callable[[Lesson], None]]] = {
    "mlp": ("1 and 2. Core ideas, and the multilayer perceptron", demo_mlp),
    "cnn": ("3. Convolutional neural network: images", demo_cnn),
    "lstm": ("4. Recurrent networks: sequences", demo_lstm),
    "gpt2": ("5. Transformers: GPT writes", demo_gpt2),
    "bert": ("5. Transformers: BERT understands", demo_bert),
}


def run_demo(name: str, lesson: Lesson) -> dict[str, Any]:
    """Run one demo from its own seed; whatever goes wrong in it stays in it. Returns its part of the report."""
    title, demo = DEMOS[name]
    say(f"\n{title}\n{'-' * len(title)}\n{demo.__doc__}\n")
    torch.manual_seed(lesson.options.seed)
    began, error = time.perf_counter(), None
    try:
        demo(lesson)
    except Exception as problem:  # the other demos go on, and the report says what happened
        error = f"{type(problem).__name__}: {problem}"
        say(f"  FAILED {error}", 4)
    failed = error or any(check["passed"] is False for check in lesson.checks)
    seconds = time.perf_counter() - began
    say(f"\n  {name}: {'failed' if failed else 'ok'}, {seconds:.1f} s")
    return {"name": name, "status": "failed" if failed else "ok", "seconds": seconds, "metrics": lesson.metrics,
            "checks": lesson.checks, "figures": lesson.figures, "error": error}  # fmt: skip


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends with one line and status 2, before any work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=DEMOS, default=list(DEMOS), metavar="DEMO", help=" ".join(DEMOS))
    parser.add_argument("--quick", action="store_true", help="short trainings; rows that need a full one are skipped")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--models", choices=("auto", "hub", "embedded"), default="auto",
                        help="the real GPT-2 and BERT, the small embedded ones, or whichever can be had")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report for programs")
    parser.add_argument("--figures", type=Path, default=DATA / "figures", metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    try:
        options.picked = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    for file in filter(None, (options.json, options.figures / "picture.png")):
        try:
            write_whole(file.with_name(f".{file.name}.try"), lambda part: part.touch())
            file.with_name(f".{file.name}.try").unlink()
        except OSError as error:
            parser.error(f"cannot write to {file.parent}: {error.strerror}; name another place")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demos in the lecture's order; returns the exit status: 0 all well, 1 a demo failed, 130 interrupted."""
    options = parse_arguments(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    began, device = time.perf_counter(), options.picked
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    why = "as asked" if options.device != "auto" else "the fastest that this machine has"
    say(f"Deep learning, shown. Device: {device} ({why}); torch {torch.__version__}; seed {options.seed}")
    lessons = [Lesson(name, device, options) for name in DEMOS if name in options.only]
    demos, status = [], 0
    try:
        for lesson in lessons:
            demos.append(run_demo(lesson.name, lesson))
        show_table(lessons)
    except KeyboardInterrupt:
        say(f"\nInterrupted. Done so far: {' '.join(demo['name'] for demo in demos) or 'nothing'}")
        status = 130
    seconds = time.perf_counter() - began
    if options.json:
        report = {"versions": versions, "device": str(device), "seed": options.seed, "seconds": seconds, "demos": demos}
        write_whole(options.json, lambda part: part.write_text(json.dumps(report, indent=1), encoding="utf-8"))
    failed = [demo["name"] for demo in demos if demo["status"] == "failed"]
    passed = sum(check["passed"] is True for demo in demos for check in demo["checks"])
    say(f"\n{passed} claims shown in {seconds:.0f} s" + (f"; failed: {' '.join(failed)}" if failed else ""))
    return status or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
