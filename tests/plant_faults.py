"""Do the tests have teeth? Plant one fault at a time in a copy of the script and run them on it.

    python tests/plant_faults.py              all faults, two at a time: caught or missed, the score
    python tests/plant_faults.py gate mask    only those whose name has one of these words

The copy lies in a temporary folder beside links to data/. A fault is caught when a test fails. The
first run is a control: a fault that changes nothing, with which all must pass.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "03_Deep_Learning_Models.py"
FILES = ("1_tools", "2_data", "3_rows", "4_experiments", "5_run")  # test_0 looks at the form alone
BREAKS = {  # README's table "Break it yourself": the text before, and after
    "sqrt(d_k) dropped": (" / math.sqrt(k.shape[-1])  #", "  #"),
    "each position sees the next one, too": ("torch.ones_like(scores).triu(1)",
                                             "torch.ones_like(scores).triu(2)"),
    "no activation": ("type[nn.Module] = nn.ReLU", "type[nn.Module] = nn.Identity"),
    "no step": ("        optimizer.step()  #", "        #"),
    "no skip connection": ("return x + super().forward(x)", "return super().forward(x)"),
    "gates swapped": ("w_i, w_f, w_c, w_o =", "w_f, w_i, w_c, w_o ="),
    "attention without positions": (" + self.position.weight[: x.shape[1]]", ""),
    "the next character is the last one": ("Data(pieces[:, :-1], pieces[:, 1:],",
                                           "Data(pieces[:, :-1], pieces[:, :-1],"),
}
FAULTS = {  # what a careless edit could do: where it is likely to be caught, before, after
    # 1 core ideas, the training loop
    "neuron without its bias": (3, ").sum() + layer.bias[n]", ").sum()"),
    "chain rule: sign of tanh'": (3, "d_hidden * (1 - hidden**2)", "d_hidden * (1 + hidden**2)"),
    "gradient of the sum, not of the mean": (3, "F.one_hot(y, 3)) / len(x)", "F.one_hot(y, 3))"),
    "SGD uphill": (3, "start - rate * gradients[0] -", "start + rate * gradients[0] -"),
    "Adam without bias correction": (3, "m / (1 - 0.9**t), v", "m, v"),
    "16 bits on every processor": (1, "torch.bfloat16, able)", "torch.bfloat16, True)"),
    "one core for all": (1, "else CORES)", "else 1)"),
    "cores not given back": (1, "(CORES)\n    return losses", "(1)\n    return losses"),
    "optimizer steps uphill": (1, "        loss.backward()", "        (-loss).backward()"),
    "gradients add up": (1, "        optimizer.zero_grad()  #", "        #"),
    "no clipping": (1, "        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  #", "        #"),
    "the rate never falls": (1, "        schedule.step()\n", ""),
    "train() dropped": (1, "    model.train()\n", ""),
    "eval() dropped": (1, "    model.eval()\n", ""),
    "accuracy over the wrong axis": (1, "(model, x).argmax(1)", "(model, x).argmax(0)"),
    "labels shuffled in fit": (1, "data.y[rows[step]]", "data.y[rows[0]][: len(rows[step])]"),
    "fit tests on what it learned": (1, "accuracy(model, data.x_test, data.y_test)\n    if learned",
                                     "accuracy(model, data.x, data.y)\n    if learned"),
    "rows always in the same order": (1, "torch.randperm(n) for _", "torch.arange(n) for _"),
    # 2 MLP
    "letters standardised with the test rows": (2, "(x - x[:16_000].mean(0)) / x[:16_000].std(0)",
                                                "(x - x.mean(0)) / x.std(0)"),
    "test letters in training": (2, "return Data(x[:16_000], y[:16_000],", "return Data(x, y,"),
    "softmax over the rows": (3, "logits.exp().sum(1, keepdim", "logits.exp().sum(0, keepdim"),
    "bound of 97 % removed": (4, "right[-1] > 97 and ", ""),
    "bound of overfitting removed": (4, "gap[0] > 20 and ", ""),
    # 3 CNN
    "tests on training digits": (2, "in (True, False)]\n    #", "in (True, True)]\n    #"),
    "the window's stride forgotten": (3, "size - k + 1, stride)", "size - k + 1, 1)"),
    "sum pooling": (3, "patch.sum() / 4", "patch.sum()"),
    "a dense layer without biases": (3, "(28 * 28 + 1) * 16", "28 * 28 * 16"),
    "a shift that wraps round": (3, "F.pad(x, (pixels, -pixels), value=x.min().item())",
                                 "x.roll(pixels, -1)"),
    "test rows alone are shuffled": (4, "data._replace(x=x, x_test=x_test)",
                                     "data._replace(x_test=x_test)"),
    "layers standardised by the test's mean": (4, "x_test=(x_test - x.mean())",
                                               "x_test=(x_test - x_test.mean())"),
    "bound of 99.2 % removed": (4, "right >= 99.2", "right >= 0"),
    "a thin digit has no width": (3, "[max(1, round(20 * side / max(ink.size)))",
                                  "[round(20 * side / max(ink.size))"),
    "a photo that lies on its side": (3, "ImageOps.exif_transpose(Image.open(file))",
                                      "Image.open(file)"),
    "digits not centred": (3, "14 - round(right), 14 - round(down)", "4, 4"),
    "light ink read as paper": (3, "(light - light[0, 0]).abs()", "1 - light"),
    # 4 RNN and LSTM
    "RNN without tanh": (3, "h = torch.tanh(w_hh @ h + w_xh @ x_t + b_x + b_h)",
                         "h = w_hh @ h + w_xh @ x_t + b_x + b_h"),
    "the wrong gate opened": (3, ".data[64:128] = 3.0\n    x,", ".data[:64] = 3.0\n    x,"),
    "recall of the last symbol": (4, "return x, x[:, 0]", "return x, x[:, -1]"),
    "the unseen tenth is seen": (2, "return text[: len(text) * 9 // 10], text",
                                 "return text, text"),
    "tables count the wrong way": (3, "count + kind * p[i]", "count + p[i]"),
    "the text's end has no follower": (3, "seen + seen[:longest]", "seen"),
    "bits in nats": (4, "data.y_test).item() / math.log(2)", "data.y_test).item()"),
    "measured one character off": (4, "test[1:20_001].view", "test[:20_000].view"),
    "bound of the RNN removed": (4, 'right["RNN"] < 30 and', 'right["RNN"] < 300 and'),
    # 5 Transformers
    "attention asked at the first place": (3, "q[:, -1:]", "q[:, :1]"),
    "causal mask transposed": (3, ".triu(1).bool()", ".tril(-1).bool()"),
    "softmax over the queries": (3, "scores.softmax(-1) @ v", "scores.softmax(-2) @ v"),
    "a block without Norm": (3, "block.attn.c_attn(block.ln_1(x))", "block.attn.c_attn(x)"),
    "a block without Add": (3, "    x = x + block.mlp", "    x = block.mlp"),
    "GPT's loss one token off": (3, "pieces[:, 1:, None]", "pieces[:, :-1, None]"),
    "a long text's beginning goes on": (3, "input_ids[:, -200:]", "input_ids[:, :200]"),
    "greedy that samples": (3, '{"do_sample": False}\n', '{"do_sample": True}\n'),
    "library compared with itself": (3, ' s", ids, library)', ' s", library, library)'),
    "positions never put in": (3, "in (torch.zeros_like(ids), None)",
                               "in (torch.zeros_like(ids), torch.zeros_like(ids))"),
    "the hidden word is not hidden": (4, "*words[spot + 1 :]]", "*words[spot:]]"),
    "the left is seen, too": (4, "t <= place, (t >= place)", "t >= 0, (t >= place)"),
    "padding is averaged, too": (4, "(x * real).sum(1) / real.sum(1)", "x.mean(1)"),
    "the head learns from its test": (4, "Data(x[name], y, ", "Data(x_test[name], y_test, "),
    "bound of opinions removed": (4, "sum(right) >= 30", "sum(right) >= 2"),
    # 6 and 7: the table, the run
    "MLP over CNN will do": (4, "cnn > mlp > linear", "cnn > linear"),
    "an infinite tolerance": (1, "<= tolerance).all()", "<= math.inf).all()"),
    "ids to rounding": (1, " if b.is_floating_point() else 0", ""),
    "quick passes what it left out": (1, "None if full and self", "True if full and self"),
    "exit status 0 after a failed demo": (5, "lesson.status = 1\n        frame", "frame"),
    "exit status 0 after a failed claim": (5, "int(False in passed)", "0"),
    "--seed ignored": (5, "torch.manual_seed(self.seed)", "torch.manual_seed(0)"),
    "--device ignored": (5, "return Lesson(**options)",
                         'return Lesson(**options | {"device": "auto"})'),
    "--only ignored": (5, "for name in DEMOS if name in wanted", "for name in DEMOS"),
    "gradients and dropout left on": (5, "model.eval().requires_grad_(False)", "model.train()"),
    "the revision is not pinned": (5, "snapshot_download(repository, revision=revision,",
                                   "snapshot_download(repository,"),
}


def failing_test(before: str, after: str, first: int) -> str:
    """The first test that fails on a copy of the script with this fault; "" if none does."""
    text = (ROOT / SCRIPT).read_text(encoding="utf-8")
    if text.count(before) != 1:
        return f"?? stands {text.count(before)} times in the script: {before!r}"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / SCRIPT
        copy.write_text(text.replace(before, after), encoding="utf-8")
        (copy.parent / "data").symlink_to(ROOT / "data")
        likely = [f"tests/test_{FILES[first - 1]}.py"]
        for files in (likely, [f"tests/test_{file}.py" for file in FILES if file not in likely[0]]):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files],
                env={**os.environ, "LECTURE_SCRIPT": str(copy), "OMP_NUM_THREADS": "1"},
                cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                found = re.search(r"(?m)^(?:FAILED|ERROR) tests/(\S+)", done.stdout)
                return found[1] if found else done.stdout[-300:] + done.stderr[-300:]
    return ""


def main() -> None:
    """Plant the faults and print the score."""
    faults = FAULTS | {f"break: {name}": (3, *change) for name, change in BREAKS.items()}
    chosen = {name: fault for name, fault in faults.items()
              if not sys.argv[1:] or any(word in name for word in sys.argv[1:])}
    if not sys.argv[1:] and (test := failing_test("\n# %% 2. ", "\n# A comment.\n# %% 2. ", 1)):
        sys.exit(f"without any fault, {test} fails")
    with ThreadPoolExecutor(2) as pool:
        tests = {name: pool.submit(failing_test, before, after, first)
                 for name, (first, before, after) in chosen.items()}
        for name, test in tests.items():
            verdict = "MISSED" if not test.result() else "?" if "??" in test.result() else "caught"
            print(f"{verdict:7} {name}  {test.result()}", flush=True)
    score = sum(bool(test.result()) and "??" not in test.result() for test in tests.values())
    print(f"{score} of {len(tests)} faults caught")
    sys.exit(score != len(tests))


if __name__ == "__main__":
    main()
