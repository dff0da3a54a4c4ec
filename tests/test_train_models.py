"""data/train_models.py: each model trains a few steps, goes on from a checkpoint, and loads."""

import subprocess
import sys

import pytest
from conftest import ROOT
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

WORDS = [
    "the",
    "old",
    "man",
    "saw",
    "a",
    "small",
    "dog",
    "near",
    "his",
    "house",
    "in",
    "rain",
]
TEXTS = [
    " ".join(WORDS[(7 * i + j * (i % 5 + 1)) % 12] for j in range(8)) + "."
    for i in range(600)
]


@pytest.fixture(scope="module")
def corpora(
    tmp_path_factory,
):  # tiny ones in the real form, and a teacher that knows nothing
    novel = (ROOT / "data/pride-and-prejudice.txt").read_text(encoding="utf-8")
    files = {
        "austen/pride-and-prejudice.txt": novel[:60_000],
        "austen/emma.txt": novel[:30_000],
        "wordnet/data.noun": "\n".join(f'0 n | {a[:-1]}; "{a}"' for a in TEXTS[:300]),
    }
    for part, n in (("train", 0), ("dev", 500)):
        rows = [f"{TEXTS[i]}\t{i % 2}" for i in range(n, n + 40)]
        files[f"sst2/{part}.tsv"] = "\n".join(["sentence\tlabel", *rows])
        files[f"stsb/sts-{part}.csv"] = "\n".join(
            f"a\tb\tc\t{i}\t{i % 6}\t{TEXTS[n + i]}\t{TEXTS[n + i + 1]}"
            for i in range(20)
        )
    folder = tmp_path_factory.mktemp("corpora")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/bert-mini")
    tokenizer.save_pretrained(folder / "teacher")
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=384,
            num_hidden_layers=3,
            num_attention_heads=12,
            intermediate_size=1536,
        )
    ).save_pretrained(folder / "teacher")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2-austen", "bert-mini", "distilbert-sst2-mini"])
def test_a_model_trains_goes_on_from_its_checkpoint_loads_and_is_measured(
    corpora, name
):
    command = [
        sys.executable,
        ROOT / "data/train_models.py",
        name,
        "--every=1",
        "--threads=1",
    ]
    for option in ("wordnet", "teacher", "models", "work"):
        command += [f"--{option}", corpora / option]
    first, resumed, figures = (
        subprocess.run(
            [*command, "--corpora", corpora, more],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for more in ("--steps=1", "--steps=2", "--measure")
    )
    assert f"{name}: step 1 of 1" in first and f"{name}: step 2 of 2" in resumed
    assert f"{name}: step 1 " not in resumed and any(char.isdigit() for char in figures)
    assert (
        AutoModel.from_pretrained(corpora / "models" / name).config.model_type
        in name + "gpt2"
    )
