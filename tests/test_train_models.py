"""data/train_models.py: each model trains a few steps, goes on, and loads."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

WORDS = "the old man saw a small dog near his house in rain".split()
ORDERS = [[(7 * i + j * (i % 5 + 1)) % 12 for j in range(8)] for i in range(600)]
TEXTS = [" ".join(WORDS[n] for n in order) + "." for order in ORDERS]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):  # tiny ones, and a teacher that knows nothing
    novel = (ROOT / "data/pride-and-prejudice.txt").read_text(encoding="utf-8")
    files = {
        "austen/pride-and-prejudice.txt": novel[:60_000],
        "austen/emma.txt": novel[:30_000],
        "wordnet/data.noun": "\n".join(f'0 n | {a[:-1]}; "{a}"' for a in TEXTS[:300]),
    }
    for part, n in (("train", 0), ("dev", 500)):
        rows = [f"{TEXTS[i]}\t{i % 2}" for i in range(n, n + 40)]
        files[f"sst2/{part}.tsv"] = "\n".join(["sentence\tlabel", *rows])
        row = "a\tb\tc\t{0}\t{0}\t{1}\t{2}".format
        rows = [row(i % 6, TEXTS[n + i], TEXTS[n + i + 1]) for i in range(20)]
        files[f"stsb/sts-{part}.csv"] = "\n".join(rows)
    folder = tmp_path_factory.mktemp("corpora")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/bert-mini")
    tokenizer.save_pretrained(folder / "teacher")
    size = {"vocab_size": len(tokenizer), "hidden_size": 384, "num_hidden_layers": 3}
    size["intermediate_size"] = 1536
    BertModel(BertConfig(**size)).save_pretrained(folder / "teacher")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2-austen", "bert-mini", "distilbert-sst2-mini"])
def test_a_model_trains_goes_on_from_its_checkpoint_and_loads(corpora, name):
    command = [sys.executable, ROOT / "data/train_models.py", name, "--threads=1"]
    for option in ("wordnet", "teacher", "models", "work"):
        command += [f"--{option}", corpora / option]
    command += ["--every=1", "--corpora", corpora]
    how = {"check": True, "capture_output": True, "text": True}
    out = []
    for more in ("--steps=1", "--steps=2", "--measure"):
        out.append(subprocess.run([*command, more], **how).stdout)
    assert f"{name}: step 1 of 1" in out[0] and f"{name}: step 2 of 2" in out[1]
    assert f"{name}: step 1 " not in out[1] and re.search(r"\d", out[2])
    kind = AutoModel.from_pretrained(corpora / "models" / name).config.model_type
    assert kind in name + "gpt2"
