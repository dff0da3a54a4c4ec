"""The data: whole, split as at their sources, the test part unseen; the models."""

import hashlib
import json
import operator
import re
import shutil

import pytest
import torch
from conftest import CPU, ROOT, load
from torchvision.datasets import MNIST

DATA = ROOT / "data"
MODELS = {"gpt2-austen": 14, "bert-mini": 18, "distilbert-sst2-mini": 12}  # at most, MB
LETTERS = (DATA / "letter-recognition.csv").read_text(encoding="utf-8")
SENTENCES = json.loads((DATA / "sentences.json").read_text(encoding="utf-8"))


def test_mnist_is_the_official_one_normalised_and_tests_on_other_digits(digits):
    for file, md5 in MNIST.resources:
        content = (DATA / "MNIST/raw" / file).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5
    x, y, x_test, y_test = digits
    assert len(x) == len(y) == 60_000 and x_test.shape == (10_000, 1, 28, 28)
    assert y_test.bincount().tolist()[:3] == [980, 1135, 1032]
    assert x.mean().item() == pytest.approx(0, abs=1e-3) == x.std().item() - 1
    assert x_test.min() == x.min()  # by the same numbers, not by its own
    learned = {image.tobytes() for image in x.numpy()}
    assert not learned & {image.tobytes() for image in x_test.numpy()}


def test_letters_are_standardised_by_the_training_rows_alone(lecture):
    rows = [line.split(",") for line in LETTERS.splitlines()[1:]]
    raw = torch.tensor([[float(number) for number in row[1:]] for row in rows])
    x, y, x_test, y_test = lecture.load_letters(CPU)
    letters = [chr(65 + n) for n in torch.cat([y, y_test]).tolist()]
    assert letters == [row[0].strip('"') for row in rows] and len(y) == 16_000
    expected = (raw - raw[:16_000].mean(0)) / raw[:16_000].std(0)
    torch.testing.assert_close(torch.cat([x, x_test]), expected, atol=1e-4, rtol=1e-4)


def test_a_table_of_ones_own_is_read(tmp_path):
    text = "\n".join(LETTERS.splitlines()[:1_001]) + "\n\n"
    (tmp_path / "letter-recognition.csv").write_text(text, encoding="utf-8")
    assert load(data=tmp_path).load_letters(CPU).x.shape == (800, 16)


WEIGHTS = "models/bert-mini/model.safetensors"
LABELS = "MNIST/raw/t10k-labels-idx1-ubyte.gz"
READ = "read_archive", "t10k-labels-idx1", 8
POINTER = b"version https://git-lfs.github.com/spec/v1"
cut = operator.itemgetter(slice(-13))
DAMAGED = [  # a file, what happened to it, who reads it
    ("letter-recognition.csv", cut, ("load_letters", CPU)),
    (LABELS, lambda all: all[:2_000] + b"?" + all[2_001:], READ),
    (LABELS, cut, READ),
    (LABELS, None, READ),
    ("pride-and-prejudice.txt", None, ("load_novel",)),
    ("sentences.json", cut, ("sentences", "masks")),
    (WEIGHTS, lambda _: POINTER, ("load_pretrained", "BERT")),
]


@pytest.mark.parametrize("file, damage, read", DAMAGED)
def test_a_damaged_file_costs_one_line_that_names_it(tmp_path, file, damage, read):
    shutil.copytree((DATA / file).parent, (tmp_path / file).parent, dirs_exist_ok=True)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if damage:
        (tmp_path / file).write_bytes(damage(content))
    with pytest.raises(OSError) as told:
        getattr(load(data=tmp_path), read[0])(*read[1:])
    line = str(told.value)
    assert str(tmp_path / file) in line and len(line.splitlines()) == 1


def words_of(text):
    return f" {' '.join(re.findall('[a-z0-9]+', text.lower()))} "


def test_the_last_tenth_of_the_novel_is_unseen(lecture):
    seen, unseen = lecture.load_novel()
    whole = (DATA / "pride-and-prejudice.txt").read_text(encoding="utf-8")
    assert len(unseen) == pytest.approx(len(whole) / 10, abs=1)
    assert unseen[:300] not in seen and (seen + unseen).split() == whole.split()
    seen, unseen = words_of(seen), words_of(unseen)
    rows = [" ".join(row) for row in SENTENCES["masked"]]
    assert len(rows) > 400 and all(words_of(row) in unseen for row in rows)
    assert not any(words_of(row) in seen for row in rows)


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_is_small_safe_readable_and_has_its_card(name):
    folder = DATA / "models" / name
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in files) <= 1e6 * MODELS[name]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall("## (.*)", card)[:3] == ["Data", "Licence", "Training"]
