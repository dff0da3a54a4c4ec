"""The data: whole, split as at their sources, the test part unseen; and the models beside them."""

import hashlib
import json
import re
from collections import Counter

import pytest
import torch
from conftest import CPU, ROOT
from torchvision.datasets import MNIST

DATA = ROOT / "data"
MODELS = {"gpt2-austen": 14, "bert-mini": 18, "distilbert-sst2-mini": 12}  # at most, in MB


@pytest.mark.parametrize("file, md5", MNIST.resources)
def test_the_archives_are_the_official_ones(file, md5):
    assert hashlib.md5((DATA / "MNIST/raw" / file).read_bytes()).hexdigest() == md5


def test_mnist_has_all_its_digits_normalised_by_the_training_pixels_and_tests_on_others(digits):
    x, y, x_test, y_test = digits
    assert x.shape == (60_000, 1, 28, 28) and y.shape == (60_000,)
    assert y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert x.mean().item() == pytest.approx(0, abs=1e-3) == x.std().item() - 1
    assert x_test.min() == x.min() and x_test.mean().item() == pytest.approx(0.006, abs=1e-3)
    learned, tested = ({hash(image.tobytes()) for image in part.mul(99).byte().numpy()}
                       for part in (x, x_test))
    assert len(learned) > 59_000 and len(tested) > 9_900 and not learned & tested


def test_letters_are_split_as_always_and_standardised_by_the_training_rows_alone(lecture):
    lines = (DATA / "letter-recognition.csv").read_text(encoding="utf-8").splitlines()[1:]
    raw = torch.tensor([[float(n) for n in line.split(",")[1:]] for line in lines])
    x, y, x_test, y_test = lecture.load_letters(CPU)
    assert [chr(65 + n) for n in [*y.tolist(), *y_test.tolist()]] == [
        line.split(",")[0].strip('"') for line in lines]
    expected = (raw - raw[:16_000].mean(0)) / raw[:16_000].std(0)
    assert x.shape == (16_000, 16) and torch.allclose(torch.cat([x, x_test]), expected, atol=1e-3)


def test_the_last_tenth_of_the_novel_is_unseen_and_the_sentences_are_others(lecture):
    seen, unseen = lecture.load_novel()
    whole = (DATA / "pride-and-prejudice.txt").read_text(encoding="utf-8")
    assert len(unseen) == pytest.approx(len(whole) / 10, abs=1) and unseen[:300] not in seen
    assert (seen + unseen).replace("\n", " ") == whole.replace("\n", " ")
    words = Counter(re.findall("[a-z]+", seen.lower())).most_common(1)
    assert words[0][0] == "the"  # which 5.8 takes for the commonest
    texts = json.loads((DATA / "sentences.json").read_text(encoding="utf-8"))
    opinions, senses = texts["POSITIVE"] + texts["NEGATIVE"], texts["senses"].items()
    assert len(texts["POSITIVE"]) == len(texts["NEGATIVE"]) == 20 == len(set(opinions)) / 2
    assert len(senses) == 10 and len(texts["paraphrases"]) >= 8
    assert all(re.search(rf"\b{word}\b", text) for word, three in senses for text in three)
    assert not [text for text in opinions + sum(texts["senses"].values(), [])
                if text in seen + unseen]


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_is_small_safe_readable_by_all_and_has_its_card(name):
    files = {path.name: path for path in (DATA / "models" / name).iterdir()}
    assert sum(path.stat().st_size for path in files.values()) <= 1e6 * MODELS[name]
    assert {path.suffix for path in files.values()} == {".json", ".safetensors", ".md"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files.values())
    card = files["README.md"].read_text(encoding="utf-8")
    assert re.findall("## (.*)", card) == ["Data", "Licence", "Training", "Figures", "Limits"]
    assert f"python data/train_models.py {name} --measure" in card


def test_every_file_of_data_is_explained():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in DATA.iterdir()} - {"README.md", "__pycache__"} | set(MODELS)
    assert {name for name in names if name not in text} == set()
