"""Side figures: what else could have produced a number of the run? Three minutes.

python tests/controls.py [3.6 4.3 ...]      all, or those of some parts
"""

import collections
import importlib.util
import itertools
import json
import math
import os
import sys
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import nn

path = Path(__file__).resolve().parents[1] / "03_Deep_Learning_Models.py"
path = os.environ.get("LECTURE_SCRIPT", path)  # or another copy of the script
spec = importlib.util.spec_from_file_location("lecture", path)
dl = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dl)
lesson = dl.Lesson("cpu")
lesson.tell = lambda kind, text: None  # it says nothing


def part_3_3():
    data = dl.load_mnist(lesson.device)
    bare = dl.build_cnn()
    bare.block1[2] = bare.block2[2] = nn.MaxPool2d(1, stride=2)  # every second pixel
    models = {"CNN": (dl.build_cnn(), 400), "CNN without pooling": (bare, 400)}
    models["MLP, ten times as many steps"] = (dl.build_mlp(784, 165, 165, 10), 4_000)
    for name, (model, steps) in models.items():
        dl.fit(lesson, model, data, steps, rate=0.006)
        moved = [dl.shift_right(data.x_test, pixels) for pixels in (0, 2, 4)]
        right = [f"{dl.accuracy(model, x, data.y_test):.1f}" for x in moved]
        yield f"{name}: % read, moved by 0, 2, 4 pixels", ", ".join(right)


def part_3_6():
    data = dl.load_letters(lesson.device)
    kinds = ((2, nn.Sequential), (20, nn.Sequential), (20, dl.Skip))
    for start, (depth, block) in itertools.product(("He", "PyTorch"), kinds):
        net = dl.build_deep(depth, block)
        for layer in net.modules() if start == "PyTorch" else []:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        F.cross_entropy(net(data.x[:1_000]), data.y[:1_000]).backward()
        first, last = (net[n][0].weight.grad.norm().item() for n in (1, -2))
        dl.fit(lesson, net, data, steps=150, rate=0.006)
        told = f"{depth} layers, {block.__name__}, {start}'s start: %; first / last"
        yield told, f"{dl.accuracy(net, *data[2:]):.1f}; {first / last:.0e}"
    for depth, block in kinds:
        net = dl.build_deep(depth, block)
        dl.fit(lesson, net, data, steps=1_500, rate=0.006)
        told = f"{depth} layers, {block.__name__}, ten times as many steps: %"
        yield told, f"{dl.accuracy(net, *data[2:]):.1f}"


def part_4_2():
    torch.randn(101, 8, 64)  # the run's inputs: what is drawn next is the run's RNN
    largest = torch.linalg.eigvals(nn.RNN(64, 64).weight_hh_l0).abs().max().item()
    yield "largest eigenvalue of W_hh, and times 4", f"{largest:.2f}, {4 * largest:.2f}"


def recalled(model, steps, rate, short_first):
    x_test, y_test = dl.recall_batch(lesson, length=100, rows=1_000)
    growing = range(2, 300, 2_400 // steps) if short_first else [100] * 17

    def batches(step):
        return dl.recall_batch(lesson, min(100, growing[step // 20]))

    dl.train(lesson, model, batches, steps, rate)
    return f"{dl.accuracy(model, x_test, y_test):.1f}"


def part_4_3():
    for rate, short in ((0.02, True), (0.02, False), (0.005, True)):
        lstm = nn.Sequential(dl.Recurrent(nn.LSTM, 8, hidden=64), dl.LastPlace())
        told = f"LSTM, {'' if short else 'no '}short ones first, rate {rate}: %"
        yield told, recalled(lstm, 340, rate, short)
    rnn = nn.Sequential(dl.Recurrent(nn.RNN, 8, hidden=64), dl.LastPlace())
    rnn[0].cell = nn.RNN(64, 64, bias=False, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn[0].cell.weight_hh_l0)
    yield "ReLU RNN, from the identity, rate 0.003: %", recalled(rnn, 340, 0.003, True)
    ones = nn.Embedding.from_pretrained(torch.eye(8))  # each symbol: a 1 and seven 0
    linear = nn.Sequential(ones, nn.Flatten(), nn.Linear(800, 8))
    yield "linear model of all 100 places: %", recalled(linear, 340, 0.02, False)


def part_5_2():
    for rate, places in {0.002: True, 0.005: True, 0.02: True, 0.01: False}.items():
        gpt = nn.Sequential(dl.GPT(8, 100, heads=1), dl.LastPlace())
        gpt[0].position.weight.requires_grad_(places).data *= places
        told = f"GPT, {'' if places else 'no '}positions, rate {rate}: % recalled"
        yield told, recalled(gpt, 200, rate, False)

    lstm = nn.Sequential(dl.Recurrent(nn.LSTM, 8, hidden=64), dl.LastPlace())
    told = "LSTM, short ones first, as many steps, rate 0.02: %"
    yield told, recalled(lstm, 200, 0.02, True)


def kneser_ney(pieces, n):  # Kneser and Ney 1995, interpolated, discount 0.75
    counts = [None] * n + [collections.defaultdict(collections.Counter)]
    for place in range(n, len(pieces.seen)):
        before = tuple(pieces.seen[place - n : place])
        counts[n][before][pieces.seen[place]] += 1
    for shorter in range(n - 1, -1, -1):  # in how many longer contexts each came
        counts[shorter] = collections.defaultdict(collections.Counter)
        for before, came in counts[shorter + 1].items():
            counts[shorter][before[1:]].update(came.keys())
    bits = []
    for place in range(3, len(pieces.unseen)):
        p = 1 / dl.load_tokenizer().get_vocab_size()
        for length in range(n + 1):
            came = counts[length].get(tuple(pieces.unseen[place - length : place]))
            if came:
                kept = max(came[pieces.unseen[place]] - 0.75, 0)
                p = (kept + 0.75 * len(came) * p) / came.total()
        bits.append(-math.log2(p))
    return f"{mean(bits) / pieces.letters:.2f}"


def part_5_3():
    for n in (1, 2, 3):
        told = f"table of {n} pieces, Kneser-Ney: bits a character"
        yield told, kneser_ney(dl.load_pieces(lesson.device), n)

    seen, unseen = (torch.tensor([*text.encode("ascii")]) for text in dl.load_novel())
    rows, tests = seen.unfold(0, 65, 1), unseen.unfold(0, 65, 64)  # 64, and the next
    data = dl.Data(rows[:, :-1], rows[:, 1:], tests[:, :-1], tests[:, 1:])
    lstm = dl.Recurrent(nn.LSTM, 128, hidden=128)
    for model, rate in ((dl.GPT(128, positions=64), 0.02), (lstm, 0.03)):
        _, seconds = dl.fit(lesson, model, data, 400, rate, rows=64)
        bits = dl.mean_loss(model, data.x_test, data.y_test) / math.log(2)
        told = f"{type(model).__name__} on single characters, {seconds:.0f} s: bits"
        yield told, f"{bits:.2f}"

    data, _, _, letters = dl.load_pieces(lesson.device)
    causal = dl.attention
    for name, masked in {"with": True, "without": False}.items():
        dl.attention = lambda q, k, v, causal, m=masked, f=causal: f(q, k, v, m)
        gpt = dl.GPT(dl.load_tokenizer().get_vocab_size(), positions=16)
        losses, _ = dl.fit(lesson, gpt, data, 400, rate=0.02, rows=64)
        last = dl.predict(nn.Sequential(gpt, dl.LastPlace()), data.x_test)
        unseen = F.cross_entropy(last, data.y_test[:, -1]).item()
        bits = [loss / math.log(2) / letters for loss in (mean(losses[-20:]), unseen)]
        told = f"GPT {name} the mask, bits: end of training; unseen last places"
        yield told, f"{bits[0]:.2f}; {bits[1]:.2f}"
    dl.attention = causal


def random_bert(seed):
    tokenizer, model = dl.load_pretrained("BERT")
    torch.manual_seed(seed)
    return tokenizer, type(model)(model.config).eval().requires_grad_(False)


def part_5_10():
    kinds = {kind: dl.sentences(kind) for kind in ("masks", "masked", "pairs")}
    trained, printed = dl.LOADED, dl.sentences
    dl.LOADED = {"BERT": (("embedded", lesson.device), *random_bert(0))}
    dl.show_masks(lesson)
    yield "a BERT of random weights", lesson.claims[-2]["sentence"]
    dl.LOADED = trained
    dl.sentences = json.loads(json.dumps(kinds).replace('\\"', "")).get
    dl.show_masks(lesson)
    yield "without quotation marks", lesson.claims[-1]["sentence"]
    dl.sentences = printed


def part_5_11():
    berts = {"bert-mini": [dl.load_pretrained("BERT")]}
    berts["random, mean of 20"] = [random_bert(seed) for seed in range(20)]
    for name, some in berts.items():
        right = torch.zeros(3)
        for bert, word in itertools.product(some, dl.sentences("senses")):
            ids, states, _ = dl.features(bert, dl.sentences("senses")[word])
            signs = bert[0].convert_tokens_to_ids([word, "[SEP]", "[CLS]", "[PAD]"])
            rest = ~torch.isin(ids, torch.tensor(signs))[:, :, None]
            static = (bert[1].get_input_embeddings()(ids) * rest).sum(1) / rest.sum(1)
            by = [states[ids == signs[0]], states[ids == signs[1]], static]
            alike = torch.stack([F.cosine_similarity(v[:1], v[1:]) for v in by])
            right += alike[:, 0] > alike[:, 1]
        told = ", ".join(f"{n:.1f}" for n in right / len(some))
        yield f"{name}: of 10, by the word, [SEP], the other words (static)", told


def part_5_12():
    counts = [0] * 10
    for seed, feeling in itertools.product(range(10), ("POSITIVE", "NEGATIVE")):
        for text in dl.sentences(feeling):
            counts[seed] += dl.judge(dl.shuffle_words(text))[0] == feeling
    told = f"{mean(counts):.1f}, from {min(counts)} to {max(counts)}"
    yield "of 40 with shuffled words, mean of ten orders", told


if __name__ == "__main__":
    known = [name[5:].replace("_", ".") for name in globals() if name[:5] == "part_"]
    for part in sys.argv[1:] or known:
        torch.manual_seed(0)
        for what, number in globals()[f"part_{part.replace('.', '_')}"]():
            print(f"{part:5} {what}: {number}", flush=True)
