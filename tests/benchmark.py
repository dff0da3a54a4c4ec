"""How fast is it? Each figure side by side with what it is compared with; prints one table.

    python tests/benchmark.py            all lines, about a quarter of an hour on two cores
    python tests/benchmark.py quick mlp  only some: run epoch cnn arithmetic mlp quick memory cache

scikit-learn is needed for the line "mlp" only (python -m pip install scikit-learn).
"""

import functools
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as main() does
ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "03_Deep_Learning_Models.py"
spec = importlib.util.spec_from_file_location("lecture", SCRIPT)
lecture = sys.modules["lecture"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lecture)
LINES = []


def line(what, ours, theirs, ratio, bar):
    """Keep a line of the table, and print it at once."""
    LINES.append((what, ours, theirs, f"{ratio:.4g}", bar))
    print("  ".join(LINES[-1]), flush=True)


def timed(work):
    """Seconds that work() takes, and what it returns."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def example_epochs(epochs, stop_at=101.0):
    """The recipe of PyTorch's MNIST example: seconds and test accuracy after each epoch."""
    x, y, x_test, y_test = lecture.load_mnist(torch.device("cpu"))
    bytes_of = [((part * 0.3081 + 0.1307) * 255).round().byte() for part in (x, x_test)]

    class Digits(torch.utils.data.Dataset):
        """One digit at a time, converted and normalised when asked for."""

        def __init__(self, images, labels):
            self.images, self.labels = images, labels

        def __len__(self):
            return len(self.images)

        def __getitem__(self, i):
            from PIL import Image
            from torchvision.transforms.functional import normalize, to_tensor

            image = to_tensor(Image.fromarray(self.images[i, 0].numpy()))
            return normalize(image, (0.1307,), (0.3081,)), int(self.labels[i])

    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    loaders = [
        torch.utils.data.DataLoader(Digits(images, labels), size, shuffle=size == 64)
        for images, labels, size in ((bytes_of[0], y, 64), (bytes_of[1], y_test, 1000))
    ]
    began, found = time.perf_counter(), []
    for _ in range(epochs):
        model.train()
        for images, labels in loaders[0]:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(i).argmax(1) == t).sum().item() for i, t in loaders[1])
        found.append((time.perf_counter() - began, right / 100))
        if right / 100 >= stop_at:
            break
    return found


def our_cnn(epochs, seed, rate):
    """The demo's CNN: seconds of training, seconds with the test pass, accuracy in percent."""
    x, y, x_test, y_test = lecture.load_mnist(torch.device("cpu"))
    torch.manual_seed(seed)
    model = lecture.build_cnn().to(memory_format=torch.channels_last)
    steps = epochs * 235
    _, training = lecture.train(model, lecture.minibatches(x, y), steps, rate, "CNN")
    testing, right = timed(lambda: lecture.accuracy(model, x_test, y_test))
    return training, training + testing, right


def whole_run(*arguments):
    """A fresh process: seconds, and its report."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [sys.executable, SCRIPT, "--models", "embedded", "--json", file, *arguments]
        seconds, _ = timed(lambda: subprocess.run(command, capture_output=True))
        return seconds, json.loads(file.read_text())


def bench_run():
    """The whole lecture against one epoch of the example, three times side by side."""
    ours, theirs = [], []
    for _ in range(3):
        ours.append(whole_run()[0])
        theirs.append(example_epochs(1)[0][0])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    line(
        "whole run : one epoch of the example",
        f"{statistics.median(ours):.1f} s",
        f"{statistics.median(theirs):.1f} s",
        ratio,
        "<= 1",
    )


def bench_cnn():
    """Time to 99.0 % and to 99.2 %, means over five seeds, against the example's epochs."""
    epoch = example_epochs(6, stop_at=99.0)
    for bar, epochs, rate, theirs, ratio_bar in (
        (99.0, 1, 0.01, epoch[-1][0], "<= 1/40"),
        (99.2, 3, 0.006, 14 * epoch[0][0], "<= 1/60"),  # as the demo trains it
    ):
        runs = [our_cnn(epochs, seed, rate) for seed in range(5)]
        seconds = statistics.median(run[1] for run in runs)  # with the test pass, as theirs
        mean = statistics.mean(run[2] for run in runs)
        name = f"CNN, {epochs} epochs, mean {mean:.2f} % (bar {bar})"
        line(name, f"{seconds:.1f} s", f"{theirs:.0f} s", seconds / theirs, ratio_bar)


def bench_arithmetic():
    """Multiplications and additions of the CNN's training a second, against a matrix product."""
    forward = 2 * (24 * 24 * 16 * 25 + 8 * 8 * 64 * 16 * 25 + 1024 * 128 + 128 * 10)
    first = 2 * 24 * 24 * 16 * 25  # no gradient of the pixels is computed
    ratios, speeds = [], []
    a = torch.randn(4096, 4096)
    for _ in range(3):
        seconds = our_cnn(1, 0, 0.006)[0]
        ours = 60000 * (3 * forward - first) / seconds
        best = min(timed(lambda: a @ a)[0] for _ in range(5))
        speeds.append((ours / 1e9, 2 * 4096**3 / best / 1e9))
        ratios.append(speeds[-1][0] / speeds[-1][1])
    ours, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
    line(
        "CNN's arithmetic : float32 matrix product",
        f"{ours:.0f} GF/s",
        f"{theirs:.0f} GF/s",
        statistics.median(ratios),
        ">= 0.4",
    )


def bench_mlp():
    """Our MLP on the letters against scikit-learn's, same layers, to the same accuracy."""
    from sklearn.neural_network import MLPClassifier

    x, y, x_test, y_test = lecture.load_letters(torch.device("cpu"))
    pair, ratios, ours, theirs = (x.numpy(), y.numpy()), [], [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = lecture.build_mlp(16, 256, 256, 26)
        _, seconds = lecture.train(model, lecture.minibatches(x, y, 512), 20 * 32, 0.015, "MLP")
        mine = lecture.accuracy(model, x_test, y_test)
        other = MLPClassifier((256, 256), random_state=seed)
        spent, right = 0.0, 0.0
        while right < min(mine, 97.0) and spent < 120:
            more, _ = timed(functools.partial(other.partial_fit, *pair, classes=range(26)))
            spent, right = spent + more, 100 * other.score(x_test.numpy(), y_test.numpy())
        ours.append(seconds)
        theirs.append(spent)
        ratios.append(seconds / spent)
    line(
        f"MLP ({mine:.1f} %) : scikit-learn's to 97.0 %",
        f"{statistics.median(ours):.1f} s",
        f"{statistics.median(theirs):.1f} s",
        statistics.median(ratios),
        "<= 1/3",
    )


def bench_quick():
    """--quick against importing the three packages, three times side by side."""
    ratios, pairs = [], []
    for _ in range(3):
        ours = whole_run("--quick")[0]
        command = [
            sys.executable,
            "-c",
            "import torch, torchvision, transformers; "
            "from transformers import AutoTokenizer, AutoModelForCausalLM",
        ]
        theirs = timed(lambda command=command: subprocess.run(command))[0]
        pairs.append((ours, theirs))
        ratios.append(ours / theirs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    line(
        "--quick : importing the packages",
        f"{ours:.1f} s",
        f"{theirs:.1f} s",
        statistics.median(ratios),
        "<= 3",
    )


def bench_memory():
    """Peak resident memory of the whole run."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], capture_output=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6)"
    )
    command = [sys.executable, "-c", program, sys.executable, SCRIPT, "--models", "embedded"]
    peak = float(subprocess.run(command, capture_output=True, text=True).stdout)
    line("peak memory of the whole run", f"{peak:.2f} GB", "", peak, "<= 1.5")


def bench_cache():
    """64 tokens after a prompt of 32, GPT-2's real size, random weights, with and without cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.arange(32)[None]

    def write(cache):
        return timed(
            lambda: model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=64,
                min_new_tokens=64,
                do_sample=False,
                use_cache=cache,
                pad_token_id=0,
            )
        )[0]

    pairs = [(write(True), write(False)) for _ in range(3)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    line(
        "GPT-2's 64 tokens with the cache : without",
        f"{ours:.1f} s",
        f"{theirs:.1f} s",
        theirs / ours,
        ">= 2.5",
    )


def main():
    """Run the lines that were asked for."""
    benches = {name[6:]: work for name, work in globals().items() if name.startswith("bench_")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"bfloat16 units: {lecture.mixed_precision(torch.device('cpu'))._enabled}"
    )
    print("what  ours  theirs  ratio  bar")
    for name in sys.argv[1:] or benches:
        benches[name]()


if __name__ == "__main__":
    main()
