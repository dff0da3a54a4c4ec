"""How fast is it? Each figure beside what it is compared with, in turn; medians of three.

    python tests/benchmark.py            all, about 40 minutes on two cores
    python tests/benchmark.py run mlp    some of run, cnn, mlp (needs scikit-learn), memory, beside

"The example" is PyTorch's MNIST example: its model, batches of 64 from a DataLoader that converts
digit by digit, Adadelta, StepLR. "To 99.2 %": until a test on all test rows shows it, tests
included; theirs is tested after every epoch, ours when its training ends. Both in float32.
"""

import os
import resource
import subprocess
import sys
import time
from statistics import median

import torch
from conftest import CPU, SCRIPT, load
from torch import nn
from torchvision import transforms
from torchvision.datasets import MNIST

lecture, NEVER = load(), float("inf")
BUSY = """import torch
x = torch.randn(1024, 1024, requires_grad=True)
while True: (x @ x).relu().sum().backward()"""  # another program that trains, on all cores


def line(what, pairs, bar):
    mine, theirs = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(a / b for a, b in pairs)
    print(f"{what:60} {mine:8.2f} {theirs:8.2f} {ratio:8.3f}  at most {bar}", flush=True)


def whole_run(*command):
    """Seconds of a program, or of the script, in a fresh process, as people start it."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *(command or [SCRIPT])], check=True, capture_output=True)
    return time.perf_counter() - began


def example(epochs, wanted=0.0):
    """Seconds that the example trains until it reads what is wanted, in %."""
    to_numbers = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)])
    learn, test = (torch.utils.data.DataLoader(
        MNIST(lecture.DATA, train=part, transform=to_numbers, download=True), size, shuffle=part)
        for part, size in ((True, 64), (False, 1000)))
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128),
                          nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    began = time.perf_counter()
    for _ in range(epochs):
        model.train()
        for x, y in learn:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            if sum((model(x).argmax(1) == y).sum().item() for x, y in test) / 100 >= wanted:
                return time.perf_counter() - began
    return NEVER


def ours(wanted, *how):
    """Seconds that one of the script's models takes to read what is wanted, as its demo trains."""
    began, right = time.perf_counter(), lecture.fit(lecture.Lesson("cpu"), "", *how)
    return time.perf_counter() - began if right >= wanted else NEVER


def bench_run():
    pairs = [(whole_run(), whole_run(__file__, "example")) for _ in "123"]
    line("whole run : the example with one epoch, both as programs, s", pairs, 0.9)


def bench_example():
    print(f"one epoch of the example, without its start: {example(1):.1f} s")


def bench_cnn():
    data = lecture.load_mnist(CPU)
    mine = median(ours(99.2, lecture.build_cnn(), data, 600, 0.006) for _ in "123")
    line("CNN to 99.2 % : the example, in 14 epochs, s", [(mine, example(14, 99.2))], "1/20")


def bench_mlp():
    from sklearn.neural_network import MLPClassifier

    data, pairs = lecture.load_letters(CPU), []
    x, y, x_test, y_test = (part.numpy() for part in data)
    for seed in range(3):
        mine = ours(97, lecture.build_mlp(16, 256, 256, 26), data, 350, 0.025, "", 512)
        other, began = MLPClassifier((256, 256), random_state=seed), time.perf_counter()
        while other.partial_fit(x, y, classes=range(26)).score(x_test, y_test) < 0.97:
            pass
        pairs.append((mine, time.perf_counter() - began))
    line("MLP to 97 % : scikit-learn's with the same layers, s", pairs, "1/3")


def bench_memory():
    whole_run()  # no other child of this process is as large
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    line("peak memory of the whole run : 1.5 GB", [(peak, 1.5)], 1)


def bench_beside():
    alone, busy = [whole_run() for _ in "123"], subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        pairs = [(whole_run(), one) for one in alone]
    finally:
        busy.kill()
    line("whole run beside another that trains : alone, s", pairs, 3)


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, bfloat16: {lecture.BFLOAT16}\n"
          f"{'ours : theirs':60} {'ours':>8} {'theirs':>8} {'ratio':>8}  bar")
    lecture.BFLOAT16 = False  # ours and theirs alike; not in the whole run, a process of its own
    for name in sys.argv[1:] or ("run", "cnn", "mlp", "memory", "beside"):
        globals()[f"bench_{name}"]()
