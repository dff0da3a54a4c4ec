"""Do the tests have teeth? Plant one fault at a time in a copy of the script and run them on it.

    python tests/plant_faults.py           all faults; prints which were caught, and the score
    python tests/plant_faults.py gate mask only those whose name has one of these words

The copy lies in a temporary folder beside links to data/. A fault is caught when a test fails;
without a fault, all must pass.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "03_Deep_Learning_Models.py"
PARTS = ("tools", "data", "rows", "command_line", "robustness", "notebook")
FAULTS = {  # what a careless edit could do: the text before and after
    "loss: optimizer.step() removed": (
        "        optimizer.step()  # 4. update",
        "        # 4. update",
    ),
    "loss: zero_grad() removed": ("        optimizer.zero_grad()  #", "        #"),
    "loss: backward before clipping lost": (
        "        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  #",
        "        #",
    ),
    "loss: the rate never falls": ("        schedule.step()\n", ""),
    "loss: NaN goes unnoticed": ("if not all(map(math.isfinite, numbers))", "if False"),
    "train() mode forgotten": ("    model.train()\n", ""),
    "eval() forgotten": ("    model.eval()\n    return", "    return"),
    "batches no longer shuffled": (
        "torch.randperm(len(x)).split(batch)",
        "torch.arange(len(x)).split(batch)",
    ),
    "accuracy: wrong axis": ("predict(model, x).argmax(-1)", "predict(model, x).argmax(0)"),
    "check: tolerance a thousand times larger": (
        "1e-4 * max(1.0",
        "0.1 * max(1.0",
    ),
    "check: shapes not compared": ("if alike else math.inf", "if True else math.inf"),
    "check: sign of a comparison": ('"<": difference < 0', '"<": difference > 0'),
    "check: skipped rows pass": (
        '"passed": None if skipped else passed',
        '"passed": passed or skipped',
    ),
    "neuron: bias forgotten": ("strict=True)) + neuron.bias", "strict=True))"),
    "backpropagation: sign": ("(1 - hidden**2)", "(1 + hidden**2)"),
    "backpropagation: not divided by rows": ("F.one_hot(y, 3)) / len(x)", "F.one_hot(y, 3))"),
    "SGD: uphill": ("w_sgd = w_sgd - rate * g", "w_sgd = w_sgd + rate * g"),
    "Adam: no correction of the start": ("rate * (m / (1 - 0.9**t))", "rate * m"),
    "softmax: wrong axis": (
        "logits.exp().sum(1, keepdim=True)",
        "logits.exp().sum(0, keepdim=True)",
    ),
    "MLP: layers without activation": (
        "activation: type[nn.Module] = nn.ReLU",
        "activation: type[nn.Module] = nn.Identity",
    ),
    "letters: standardised with the test rows": (
        "(x - x[:16000].mean(0)) / x[:16000].std(0)",
        "(x - x.mean(0)) / x.std(0)",
    ),
    "letters: test rows in training": (
        "return x[:16000], y[:16000], x[16000:]",
        "return x, y, x[16000:]",
    ),
    "MNIST: test on training digits": ("for train in (True, False)", "for train in (True, True)"),
    "MNIST: a failed download is not explained": (
        "        except (RuntimeError, OSError) as error:\n            bad",
        "        except TypeError as error:\n            bad",
    ),
    "convolution: padding forgotten": ("F.pad(image, [padding] * 4)", "F.pad(image, [0] * 4)"),
    "convolution: stride of the columns": ("j * stride : j * stride + k", "j : j + k"),
    "pooling: sum for mean": ("regions.sum(-1) / 4", "regions.sum(-1)"),
    "size: plus one forgotten": ("((n - k) // stride + 1 for", "((n - k) // stride for"),
    "shift: to the left": ("F.pad(x, (pixels, -pixels)", "F.pad(x, (-pixels, pixels)"),
    "RNN: tanh forgotten": (
        "h = torch.tanh(w_hh @ h + w_xh @ x_t + b[0] + b[1])",
        "h = w_hh @ h + w_xh @ x_t + b[0] + b[1]",
    ),
    "gates: forget and input swapped": ("w_i, w_f, w_c, w_o =", "w_f, w_i, w_c, w_o ="),
    "gates: the wrong one opened": (".chunk(4)[1].fill_(3.0)", ".chunk(4)[0].fill_(3.0)"),
    "cell: nothing added": ("c = f * c + i * c_new", "c = f * c"),
    "recall: the answer is the last symbol": ("y[:, -1] = x[:, 0]", "y[:, -1] = x[:, -1]"),
    "novel: targets not shifted": (
        "yield piece[:, :-1], piece[:, 1:]",
        "yield piece[:, :-1], piece[:, :-1]",
    ),
    "novel: the unseen tenth is seen": (
        "return text[: len(text) * 9 // 10], text",
        "return text, text",
    ),
    "attention: mask dropped": (
        "scores = scores.masked_fill(future, -math.inf)",
        "scores = scores + 0",
    ),
    "attention: mask off by one": (
        "device=scores.device).triu(1)",
        "device=scores.device).triu(2)",
    ),
    "attention: scale forgotten": (" / math.sqrt(k.shape[-1])", ""),
    "attention: softmax over queries": (
        "return scores.softmax(-1) @ v",
        "return scores.softmax(-2) @ v",
    ),
    "cost: each kept tensor weighs the same": ("kept.nbytes / 1e6", "1e-6"),
    "block: residual forgotten": (
        "    x = x + inner @ mlp.c_proj.weight",
        "    x = inner @ mlp.c_proj.weight",
    ),
    "block: norm without its mean": ("centred = x - x.mean(-1, keepdim=True)", "centred = x"),
    "GPT-2: predicts the token it sees": (
        "model(ids).logits[0, :-1], ids[0, 1:], reduction",
        "model(ids).logits[0, 1:], ids[0, 1:], reduction",
    ),
    "greedy: the least likely token": ("logits[:, -1:].argmax(-1)", "logits[:, -1:].argmin(-1)"),
    "features: always the first word": ("return states[place],", "return states[0],"),
    "block: positions forgotten": (
        "x = gpt.wte(ids) + gpt.wpe(torch.arange(ids.shape[1], device=ids.device))",
        "x = gpt.wte(ids)",
    ),
    "lengths: padding not left out": (
        "packed = nn.utils.rnn.pack_sequence(sequences)",
        "packed = nn.utils.rnn.pad_sequence(sequences)",
    ),
    "order: positions never put in": (
        '("with positions, the outputs themselves change", places, ">", 0.1)',
        '("with positions, the outputs themselves change", 0 * places, ">", 0.1)',
    ),
    "pretrained: gradients and dropout on": (
        "model.eval().requires_grad_(False)",
        "model.train().requires_grad_(False)",
    ),
    "pretrained: pickles accepted": ("    if unsafe:", "    if False:"),
    "hub: fallback never taken": (
        'if lesson.options.models == "hub":\n                raise',
        "if True:\n                raise",
    ),
    "hub: timeout removed": ("        if size == before:\n", "        if False:\n"),
    "hub: any answer will do": ('return "" if good else', 'return "" if found else'),
    "hub: revision not pinned": (
        "functools.partial(hub.hf_hub_download, repository, revision=revision,",
        "functools.partial(hub.hf_hub_download, repository,",
    ),
    "run: a failing demo stops the others": (
        "    except Exception as error:  # the other demos go on",
        "    except ArithmeticError as error:  # the other demos go on",
    ),
    "run: failures exit with 0": (
        'return int(any(lesson.status == "failed" for lesson in lessons))',
        "return 0",
    ),
    "run: the seed is forgotten": ("    torch.manual_seed(lesson.options.seed)\n", ""),
    "run: no second try on the CPU": ('if lacking and lesson.device.type != "cpu":', "if False:"),
    "report: written in place": (
        "        part.write_bytes(content)\n        part.replace(file)",
        "        file.write_bytes(content)",
    ),
    "picture: dark and bright swapped": (
        "tiles, columns, normalize=True,",
        "-tiles, columns, normalize=True,",
    ),
}


def failing_test(before: str, after: str, parts: tuple[str, ...]) -> str:
    """The first test that fails on a copy of the script with this fault; "" if none does."""
    text = (ROOT / SCRIPT).read_text(encoding="utf-8")
    if text.count(before) != 1:
        sys.exit(f"this text stands {text.count(before)} times in the script: {before!r}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / SCRIPT
        copy.write_text(text.replace(before, after), encoding="utf-8")
        (copy.parent / "data").symlink_to(ROOT / "data")
        files = [f"tests/test_{part}.py" for part in parts]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files],
            env={**os.environ, "LECTURE_SCRIPT": str(copy)},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    found = re.search(r"(?m)^(?:FAILED|ERROR) (\S+)", done.stdout)
    return found[1] if found else ""


def main() -> None:
    """Plant the faults and print the score."""
    words = sys.argv[1:]
    chosen = {
        name: fault
        for name, fault in FAULTS.items()
        if not words or any(word in name for word in words)
    }
    if not words and (test := failing_test("DEMOS: dict", "DEMOS: dict", (*PARTS, "hub"))):
        sys.exit(f"without any fault, {test} fails")
    score = 0
    for name, fault in chosen.items():
        loading = name.startswith(("hub", "pretrained"))
        test = failing_test(*fault, ("hub", *PARTS) if loading else PARTS)
        score += bool(test)
        print(f"{'caught' if test else 'MISSED':7} {name}  {test}", flush=True)
    print(f"{score} of {len(chosen)} faults caught")
    sys.exit(score != len(chosen))


if __name__ == "__main__":
    main()
