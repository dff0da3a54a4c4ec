"""data/train_models.py: each model trains for a few steps, goes on from a checkpoint, and loads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

NAMES = ("gpt2-austen", "bert-mini", "distilbert-sst2-mini")
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
    "the",
    "rain",
]


def sentence(i):
    return " ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(8)) + "."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny corpora in the form of the real ones, and a teacher that knows nothing."""
    folder = tmp_path_factory.mktemp("corpora")
    for part in ("austen", "sst2", "stsb", "wordnet", "teacher"):
        (folder / part).mkdir()
    novel = ROOT / "data/pride-and-prejudice.txt"
    for name, length in ((novel.name, 60000), ("emma.txt", 30000)):
        (folder / "austen" / name).write_text(novel.read_text(encoding="utf-8")[:length])
    for part, first in (("train", 0), ("dev", 500)):
        rows = [f"{sentence(i)}\t{i % 2}" for i in range(first, first + 40)]
        (folder / "sst2" / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
        pairs = [f"a\tb\tc\t{i}\t{i % 6}\t{sentence(i)}\t{sentence(i + 1)}" for i in range(20)]
        (folder / "stsb" / f"sts-{part}.csv").write_text("\n".join(pairs))
    glosses = [f'0 n | {sentence(i)[:-1]}; "{sentence(i + 3)}"' for i in range(300)]
    (folder / "wordnet/data.noun").write_text("\n".join(glosses))
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/bert-mini")
    tokenizer.save_pretrained(folder / "teacher")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=3,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    BertModel(config).save_pretrained(folder / "teacher")
    return folder


def train_models(folder, name, *more):
    command = [
        sys.executable,
        str(ROOT / "data/train_models.py"),
        name,
        "--corpora",
        folder,
        "--wordnet",
        folder / "wordnet",
        "--teacher",
        folder / "teacher",
        "--every",
        1,
        "--models",
        folder / "models",
        "--work",
        folder / "work",
        *more,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def printed(folders):
    """What a first training, a second that goes on, and a measurement print; three at a time."""

    def play(name):
        steps = (("--steps", 1), ("--steps", 2), ("--measure",))
        return [train_models(folders, name, *more, "--threads", 1) for more in steps]

    with ThreadPoolExecutor(len(NAMES)) as pool:
        return dict(zip(NAMES, pool.map(play, NAMES), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_trains_goes_on_from_its_checkpoint_loads_and_is_measured(folders, printed, name):
    first, resumed, figures = printed[name]
    assert f"{name}: step 1 of 1" in first
    assert f"{name}: step 2 of 2" in resumed and f"{name}: step 1 " not in resumed
    model = AutoModel.from_pretrained(folders / "models" / name)
    assert model.config.model_type in name.replace("gpt2-austen", "gpt2")
    assert all(
        path.stat().st_mode & 0o044 == 0o044 for path in (folders / "models" / name).iterdir()
    )
    assert any(word in figures for word in ("bits a character", "Spearman", "accuracy"))


def test_nothing_of_the_held_out_sentences_is_trained_on(tmp_path):
    sys.path.insert(0, str(ROOT / "data"))
    import train_models as module

    (tmp_path / "sst2").mkdir()
    whole = "a film that is both funny and sad ."
    (tmp_path / "sst2/train.tsv").write_text("sentence\tlabel\nfunny and sad\t1\ndull\t0\n")
    (tmp_path / "sst2/dev.tsv").write_text(
        f"sentence\tlabel\n{whole}\t1\nboth funny\t1\nvery dull\t0\n"
    )
    train, held = module.sst2(tmp_path)
    assert held == [(whole, 1)]
    assert [text for text, _ in train] == ["dull", "very dull"]
