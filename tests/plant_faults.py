"""Do the tests have teeth? Plant one fault at a time in a copy of the script, and see.

    python tests/plant_faults.py              all, most of an hour: caught or missed
    python tests/plant_faults.py gate mask    those whose name has one of these words
    python tests/plant_faults.py break:       README's "Break it yourself" alone

The copy lies in a temporary folder beside a link to data/. A fault is caught when a
test fails; a break, when its demo says ✗ for every row that README.md names. The first
run is a control: a fault that changes nothing, with which all tests must pass.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "03_Deep_Learning_Models.py"
FILES = ["1_tools", "2_data", "3_rows", "4_prompt", "5_run"]  # 0 looks at README alone

# What a careless edit could do: the test file that is likely to notice, before, after
FAULTS = {
    # 1 how a network learns
    "a neuron without its bias": (3, "(w * x).sum() + b\n", "(w * x).sum()\n"),
    "a Sigmoid that falls": (3, "(1 + torch.exp(-z))\n", "(1 + torch.exp(z))\n"),
    "one half of the cross-entropy": (
        3,
        "y * p.log() + (1 - y)",
        "y * p.log() + 0 * (1 - y)",
    ),
    "gradient of a sum, not of a mean": (3, "(p - y) / len(x)  #", "(p - y)  #"),
    "the bias has the mean gradient": (3, "d_b2 = d_z.sum(0)", "d_b2 = d_z.mean(0)"),
    "learning uphill": (3, "net.w1 - 1.0 * gradient", "net.w1 + 1.0 * gradient"),
    "SGD uphill": (3, "sgd - 0.1 * (", "sgd + 0.1 * ("),
    "Adam with another beta": (
        3,
        "0.999 * v + 0.001 * g**2\n        #",
        "0.99 * v + 0.01 * g**2\n        #",
    ),
    "Adam does not raise v": (3, "v / (1 - 0.999**t)\n", "v\n"),
    "softmax without e": (3, "p = z.exp() / z.exp().sum()", "p = z / z.sum()"),
    "loss of the wrong class": (3, "-p[1].log()", "-p[0].log()"),
    "the training loop uphill": (
        1,
        "zero_grad()\n        loss.backward()",
        "zero_grad()\n        (-loss).backward()",
    ),
    "gradients add up": (1, "        optimizer.zero_grad()\n", ""),
    "no clipping": (1, "    optimizer.register_step_pre_hook(clip)\n", ""),
    "the rate never falls": (
        1,
        "    optimizer.register_step_post_hook(lambda *_: schedule.step())\n",
        "",
    ),
    "train() dropped": (1, "        model.train()  #", "        #"),
    "eval() dropped": (1, "    model.eval()  #", "    #"),
    "looks at every step": (1, "if look and step % 50 == 0", "if look"),
    "answers of other rows": (1, "data.y[chosen]", "data.y[order[: len(chosen)]]"),
    "always the same order": (1, "randperm(len(data.x))", "arange(len(data.x))"),
    "the first 250 alone": (1, "in x.split(250)])", "in x.split(250)[:1]])"),
    "accuracy over the wrong axis": (
        1,
        "(model, x).argmax(-1), y)",
        "(model, x).argmax(0), y)",
    ),
    "biases are no parameters": (
        1,
        "for weights in model.parameters())\n\n\n# %% 2",
        "for weights in model.parameters() if weights.dim() > 1)\n\n\n# %% 2",
    ),
    # 2 MLP
    "letters standardised with the test": (
        2,
        "(x - x[:n].mean(0)) / x[:n].std(0)",
        "(x - x.mean(0)) / x.std(0)",
    ),
    "test letters in training": (2, "Data(x[:n], y[:n],", "Data(x, y,"),
    "a collapse that forgets a bias": (3, "(w2 @ b1 + b2) + b3\n", "(w2 @ b1) + b3\n"),
    "the loss on new letters is its own": (
        6,
        "mean_loss(mlp, few.x_test, few.y_test)",
        "mean_loss(mlp, few.x, few.y)",
    ),
    # 3 CNN
    "the stride forgotten": (
        3,
        "image.shape[1] - k + 1, stride)",
        "image.shape[1] - k + 1, 1)",
    ),
    "a filter without bias": (3, ".sum() + bias", ".sum()"),
    "tests on training digits": (2, 'in ("train", "t10k"):', 'in ("train", "train"):'),
    "pixels not normalised": (2, " / 255 - 0.1307) / 0.3081)", " / 255))"),
    "a shift that comes round": (
        3,
        "F.pad(images, (pixels, -pixels), value=images.min().item())",
        "images.roll(pixels, -1)",
    ),
    "the test alone is shuffled": (6, "(x=shuffle(data.x), x_test", "(x_test"),
    "untrained is trained": (6, "build_cnn().to(lesson.device)", "cnn"),
    "a photo that lies on its side": (4, "ImageOps.exif_transpose(picture)", "picture"),
    "16 bits taken for 8": (4, "grey / 257", "grey"),
    "transparent is black": (4, "1 - light[3] * (1 - light[:3])", "light[:3]"),
    "no blackboards": (
        4,
        "15:-15].median() < 0.4 * light.max()",
        "15:-15].median() < -1",
    ),
    "shadow is ink": (
        4,
        "paper = -F.max_pool2d(-F.max_pool2d(light, 31, 1, 15), 31, 1, 15)",
        "paper = torch.ones_like(light)",
    ),
    "digits not centred": (4, "places.mean(0) + 0.5 - side / 2)", "places.amin(0))"),
    "digits fill the frame": (4, ".max().item() * 28 / 20)", ".max().item())"),
    "ink that fills the frame is read": (4, " or part.mean() > 0.4:", ":"),
    "several digits are read as one": (4, "if not alone or near", "if near"),
    # 4 RNN and LSTM
    "the wrong gate opened": (3, "[n : 2 * n] = 3.0", "[:n] = 3.0"),
    "an RNN without tanh": (3, "h = torch.tanh(w_hh @", "h = (w_hh @"),
    "an LSTM gives out c": (3, "h = o * torch.tanh(c)", "h = o * c"),
    "recall of the last symbol": (
        3,
        "yield symbols, symbols[:, 0]",
        "yield symbols, symbols[:, -1]",
    ),
    "asked at the first place": (3, "return logits[:, -1]", "return logits[:, 0]"),
    "the unseen tenth is seen": (
        2,
        "return text[: len(text) * 9 // 10],",
        "return text,",
    ),
    "tables count kinds once": (3, "runs[run] + k * p[place]", "runs[run] + p[place]"),
    "nats for bits": (3, "1 / (math.log(2) * let", "1 / (1.0 * let"),
    "asked for the piece it sees": (
        6,
        "Data(rows[:, :-1], rows[:, 1:]",
        "Data(rows[:, :-1], rows[:, :-1]",
    ),
    # 5 Transformers
    "softmax over the queries": (3, "scores.softmax(-1) @ v", "scores.softmax(-2) @ v"),
    "a block without Add": (3, "x = x + self.mix(", "x = self.mix("),
    "no first Norm": (3, "self.qkv(self.norm1(x))", "self.qkv(x)"),
    "no second Norm": (3, "self.up(self.norm2(x))", "self.up(x)"),
    "no last Norm": (
        3,
        "self.output(self.norm(self.blocks(x)))",
        "self.output(self.blocks(x))",
    ),
    "Norm after Add": (
        3,
        "x = x + self.mix(torch.cat(heads, dim=-1))",
        "x = self.norm1(x + self.mix(torch.cat(heads, dim=-1)))",
    ),
    "no Add after the feed-forward": (
        3,
        "return x + self.down(hidden)",
        "return self.down(hidden)",
    ),
    "one head for all": (3, "self.heads = heads\n", "self.heads = 1\n"),
    "weights not transposed": (3, "weight.t() if linear else weight", "weight"),
    "greedy that draws": (3, "length=30, top_k=1)", "length=30)"),
    "the temperature ignored": (
        4,
        "p = (logits / temperature).softmax(-1)\n        ids",
        "p = logits.softmax(-1)\n        ids",
    ),
    "any top_p": (4, ' or how.get("top_p", 1) > 1:', ":"),
    "a long text is cut": (4, "if ids.shape[1] > longest:", "if False:"),
    "operations, not multiplications": (
        3,
        "get_total_flops() // 2",
        "get_total_flops()",
    ),
    "the new word's own scores": (3, "change[:, :house].max()", "change.max()"),
    "positions never put in": (
        3,
        "(torch.zeros_like(one), None)",
        "(torch.zeros_like(one), torch.zeros_like(one))",
    ),
    "the left sees the right": (
        5,
        'before.append(f"{left} [MASK].")',
        'before.append(f"{left} [MASK] {right}.")',
    ),
    "padding is averaged, too": (
        3,
        "(states * real).sum(1) / real.sum(1)",
        "states.mean(1)",
    ),
    "the farthest text": (6, "alike.argmax()", "alike.argmin()"),
    "words that are not shuffled": (
        3,
        "torch.randperm(len(words))",
        "torch.arange(len(words))",
    ),
    # 7 the run
    "a wide tolerance": (
        1,
        "assert_close(ours, theirs, **how)\n",
        "assert_close(ours, theirs, atol=1e-3, rtol=1e-3)\n",
    ),
    "NaN equals NaN": (
        1,
        "assert_close(ours, theirs, **how)\n",
        "assert_close(ours, theirs, equal_nan=True, **how)\n",
    ),
    "quick shows what it left out": (
        1,
        "None if self.full and self",
        "True if self.full and self",
    ),
    "--seed ignored": (1, "torch.manual_seed(self.seed)", "torch.manual_seed(0)"),
    "--device ignored": (5, "pick_device(device)", "pick_device()"),
    "--only ignored": (5, "in DEMOS if name in wanted", "in DEMOS"),
    "status 0 after a failed demo": (5, "lesson.status = 1\n        inside", "inside"),
    "status 0 after a failed claim": (5, "int(False in passed)", "0"),
    "status 1 after Ctrl-C": (5, "lesson.status = 130", "lesson.status = 1"),
    "a device that holds nothing": (4, "torch.ones(1, device=name).item()", "pass"),
    "dropout and gradients left on": (
        4,
        "model.eval().requires_grad_(False)",
        "model.train()",
    ),
    "a model for every call": (4, "if name in LOADED and", "if not LOADED and"),
    "the revision is not pinned": (
        5,
        '{"revision": revision, "local_files_only"',
        '{"local_files_only"',
    ),
    "a page that runs a model's text": (5, "{html.escape(text)}</", "{text}</"),
    "top_k ignored": (4, "p[math.ceil(top_k) :] = 0", "pass"),
    "top_p ignored": (4, "p[likelier >= top_p] = 0", "pass"),
}


@contextmanager
def broken_copy(before: str, after: str) -> Iterator[Path]:
    """The script with this fault, in a folder of its own; ValueError: no such place."""
    text = (ROOT / SCRIPT).read_text(encoding="utf-8")
    if text.count(before) != 1:
        raise ValueError(f"stands {text.count(before)} times: {before[:70]!r}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / SCRIPT
        copy.write_text(text.replace(before, after), encoding="utf-8")
        (copy.parent / "data").symlink_to(ROOT / "data")
        yield copy


def python(*command: str, **environment: str) -> str:
    """What Python prints, if it ends with a status other than 0; else nothing."""
    done = subprocess.run(
        [sys.executable, *command],
        env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONIOENCODING": "utf-8"}
        | environment,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout + done.stderr if done.returncode else ""


def breaks() -> Iterator[tuple[str, tuple[str, str, str, str]]]:
    """README's table: a name, then before, after, the demo to run, the rows to fail."""
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / SCRIPT).read_text(encoding="utf-8")
    line = r"\| `(\w+)` \| (?:leave out )?`(.+?)`(?: to `(.+?)`)? \| `--only (\w+)` \| "
    for where, before, after, demo, told in re.findall(line + "(.+)", table):
        start = re.search(rf"(?m)^(?:class|def) {where}\b", script)
        part = script[start.start() :].split("\n\n\n")[0] if start else ""
        if part.count(before) != 1:
            raise ValueError(f"stands {part.count(before)} times in {where}: {before}")
        told = " ".join(re.findall(r"((?:[\d., ]|to)+):", told))  # up to each colon
        rows = re.findall(r"(\d\.\d+)(?: to \d\.(\d+))?", told)
        names = []
        for first, last in rows:  # "5.4 to 5.6"
            section, n = first.split(".")
            names += [f"{section}.{m}" for m in range(int(n), int(last or n) + 1)]
        change = part, part.replace(before, after), demo, " ".join(names)
        yield f"break: {where}, {before}", change


def run_break(before: str, after: str, demo: str, rows: str) -> tuple[bool, str]:
    """Does the demo say ✗ for each of the rows? And the rows for which it does."""
    with broken_copy(before, after) as copy:
        out = python(str(copy), "--only", demo, "--figures", str(copy.parent / "new"))
    failed = re.findall(r"✗ NOT SHOWN: .*?\((\d\.\d+)\)", " ".join(out.split()))
    told = f"README: {rows}; --only {demo}: {' '.join(failed)}"
    return bool(rows) and set(rows.split()) <= set(failed), told


def run_tests(likely: int, before: str, after: str) -> tuple[bool, str]:
    """Does a test fail? And which: of the likely file, of the others, of the slow."""
    files = [f"tests/test_{file}.py" for file in FILES]
    first = files[likely - 1 : likely]
    stages = [
        first,
        [file for file in files if file not in first],
        ["-m", "slow", *files],
    ]
    if not first:  # only a whole run can tell
        stages = stages[2:] + stages[1:2]
    with broken_copy(before, after) as copy:
        for stage in filter(None, stages):
            pytest = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *stage]
            if out := python(*pytest, LECTURE_SCRIPT=str(copy)):
                found = re.search(r"(?m)^(?:FAILED|ERROR) tests/(\S+)", out)
                return True, found[1] if found else out[-300:]
    return False, ""


def main() -> None:
    """Plant the faults and print the score."""
    wanted = sys.argv[1:]
    runs = {name: (run_tests, fault) for name, fault in FAULTS.items()}
    runs |= {name: (run_break, change) for name, change in breaks()}
    if not wanted:
        fails, test = run_tests(1, "\n# %% 2. ", "\n# A comment.\n# %% 2. ")
        if fails:
            sys.exit(f"without any fault, {test} fails")
    noticed = []
    for name, (run, fault) in runs.items():
        if not wanted or any(word in name for word in wanted):
            try:
                caught, where = run(*fault)
            except ValueError as error:
                caught, where = False, str(error)
            noticed.append(caught)
            print(f"{'caught' if caught else 'MISSED'}  {name}  {where}", flush=True)
    print(f"{sum(noticed)} of {len(noticed)} caught")
    sys.exit(not all(noticed))


if __name__ == "__main__":
    main()
