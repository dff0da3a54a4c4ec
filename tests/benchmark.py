"""One whole run of the script beside one epoch of PyTorch's MNIST example.

    python tests/benchmark.py [PAIRS]    three pairs, in turn, or as many as wanted

Both are started as programs: seconds, median of their ratios, and how much memory each
held at most (where Python can tell: not on Windows). The example is that of
github.com/pytorch/examples: batches of 64, converted digit by digit, and a test.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "03_Deep_Learning_Models.py"
# what a program held at most, told by itself as it ends. Linux counts its parent's
# memory, too, while it starts: so this file imports torch only in the example
WRAPPER = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    try:
        import resource
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("\\nMEGABYTES", round(most / (1e6 if sys.platform == "darwin" else 1e3)))
    except ImportError:
        print("\\nMEGABYTES not measured")
"""


def example(archives: str) -> None:
    """PyTorch's example, one epoch, from a folder in which MNIST may be unpacked."""
    import torch
    from torch import nn
    from torchvision import transforms
    from torchvision.datasets import MNIST

    steps = [transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)]
    how = {"download": True, "transform": transforms.Compose(steps)}
    loader = torch.utils.data.DataLoader
    learn = loader(MNIST(archives, train=True, **how), batch_size=64, shuffle=True)
    test = loader(MNIST(archives, train=False, **how), batch_size=1_000)
    layers = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    for x, y in learn:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()  # its schedule changes nothing in a single epoch
    with torch.no_grad():
        print(sum((model(x).argmax(1) == y).sum().item() for x, y in test))


def measured(program: Path, *arguments: str) -> tuple[float, str]:
    """The seconds that a program takes, and the memory that it held at most, in MB."""
    command = [sys.executable, "-c", WRAPPER, str(program), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"{program} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began, done.stdout.rpartition("MEGABYTES ")[2].strip()


def main(pairs: int) -> None:
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "data" / "MNIST", Path(folder) / "MNIST")
        for _ in range(pairs):
            ours, our_most = measured(SCRIPT, "--device", "cpu", "--figures", folder)
            theirs, their_most = measured(Path(__file__), "example", folder)
            ratios.append(ours / theirs)
            told = f"the run {ours:.0f} s, {our_most} MB; the example {theirs:.0f} s, "
            print(f"{told}{their_most} MB; ratio {ratios[-1]:.2f}", flush=True)
    print(f"median of {pairs}: {median(ratios):.2f} of one epoch of the example")


if __name__ == "__main__":
    if sys.argv[1:2] == ["example"]:
        example(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
