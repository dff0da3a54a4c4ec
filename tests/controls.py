"""What else could have produced the number? Side figures, for some parts of the run.

    python tests/controls.py            all, ten minutes on two cores
    python tests/controls.py 3.6 4.3    those of some parts

The run tells some of them in words. Each part begins from seed 0.
"""

import importlib.util
import math
import os
import sys
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = os.environ.get("LECTURE_SCRIPT", ROOT / "03_Deep_Learning_Models.py")
spec = importlib.util.spec_from_file_location("lecture", SCRIPT)
dl = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dl)
CPU = torch.device("cpu")
lesson = dl.Lesson(CPU)


class EverySecond(nn.Module):
    """In the place of pooling: every second pixel, in both directions."""

    def forward(self, x):
        return x[..., ::2, ::2]


def shift():
    data = dl.load_mnist(CPU)
    bare = dl.build_cnn()
    bare.block1[2] = bare.block2[2] = EverySecond()
    models = {"CNN with pooling": (dl.build_cnn(), 400)}
    models["CNN without pooling"] = (bare, 400)
    models["MLP, trained ten times as long"] = (dl.build_mlp(784, 165, 165, 10), 4_000)
    for name, (model, steps) in models.items():
        dl.fit(lesson, model, data, steps, rate=0.006)
        for pixels in (0, 2, 4):
            x = dl.shift_right(data.x_test, pixels)
            right = dl.accuracy(model, x, data.y_test)
            yield f"{name}, % moved by {pixels} pixels", f"{right:.1f}"


def with_smaller_start(net):
    """The same net, started as PyTorch starts every linear layer."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return net


def depth():
    data = dl.load_letters(CPU)
    nets = {"2 plain": dl.build_deep(2, nn.Sequential)}
    nets["20 plain"] = dl.build_deep(20, nn.Sequential)
    nets["20 with skips"] = dl.build_deep(20, dl.Skip)
    for name, block in {"20 plain": nn.Sequential, "20 with skips": dl.Skip}.items():
        net = with_smaller_start(dl.build_deep(20, block))
        nets[f"{name}, PyTorch's start"] = net
    for name, net in nets.items():
        F.cross_entropy(net(data.x[:1_000]), data.y[:1_000]).backward()
        first, last = (net[n][0].weight.grad.norm().item() for n in (1, -2))
        yield f"{name}: gradient of the first over the last", f"{first / last:.1e}"
        dl.fit(lesson, net, data, steps=150, rate=0.006)
        yield f"{name}: % right", f"{dl.accuracy(net, data.x_test, data.y_test):.1f}"


def gradients():
    torch.randn(101, 8, 64)  # as in the run, so it is the same RNN
    w_hh = nn.RNN(64, 64).weight_hh_l0
    largest = torch.linalg.eigvals(w_hh).abs().max().item()
    yield "the largest eigenvalue of the RNN's W_hh", f"{largest:.2f}"
    yield "and of a W_hh four times as large", f"{4 * largest:.2f}"


def recalled(model, steps, rate, short_first):
    """How many of 1,000 rows of 100 symbols a model answers rightly, in %."""
    x_test, y_test = dl.recall_batch(lesson, length=100, rows=1_000)

    def batches(step):
        length = min(100, 2 + 7 * (step // 20)) if short_first else 100
        return dl.recall_batch(lesson, length)

    dl.train(lesson, model, batches, steps, rate)
    return f"{dl.accuracy(model, x_test, y_test):.1f}"


def identity_rnn(inputs, hidden, batch_first):
    """An RNN with ReLU whose W_hh is the identity at first: it keeps what it has."""
    rnn = nn.RNN(inputs, hidden, nonlinearity="relu", batch_first=batch_first)
    nn.init.eye_(rnn.weight_hh_l0)
    nn.init.zeros_(rnn.bias_hh_l0)
    nn.init.zeros_(rnn.bias_ih_l0)
    return rnn


class AllAtOnce(nn.Linear):
    """A linear model of all 100 symbols, each one 1 and seven 0."""

    def forward(self, symbols):
        return super().forward(F.one_hot(symbols, 8).float().flatten(1))


def memory():
    for name, cell, rate, short_first in (
        ("LSTM, as in the run", nn.LSTM, 0.02, True),
        ("LSTM, without short ones first", nn.LSTM, 0.02, False),
        ("LSTM, at a rate of 0.005", nn.LSTM, 0.005, True),
        ("RNN with ReLU, from the identity, at 0.003", identity_rnn, 0.003, True),
    ):
        recurrent = dl.Recurrent(cell, symbols=8, hidden=64)
        model = nn.Sequential(recurrent, dl.LastPlace())
        yield f"{name}: % recalled", recalled(model, 340, rate, short_first)
    linear = AllAtOnce(800, 8)
    yield "linear, sees all at once: % recalled", recalled(linear, 340, 0.02, False)


def recall_by_gpt():
    for rate in (0.002, 0.005, 0.01, 0.02):
        model = nn.Sequential(dl.GPT(8, 100, heads=1), dl.LastPlace())
        yield f"GPT at {rate}: % recalled", recalled(model, 200, rate, False)
    model = nn.Sequential(dl.GPT(8, 100, heads=1), dl.LastPlace())
    nn.init.zeros_(model[0].position.weight).requires_grad_(False)
    yield "GPT without positions: % recalled", recalled(model, 200, 0.01, False)


def novel():
    seen, unseen = dl.load_novel()
    kinds = sorted(set(seen + unseen))
    number = {letter: n for n, letter in enumerate(kinds)}
    rows = torch.tensor([number[letter] for letter in seen]).unfold(0, 65, 1)
    tests = torch.tensor([number[letter] for letter in unseen]).unfold(0, 65, 64)
    data = dl.Data(rows[:, :-1], rows[:, 1:], tests[:, :-1], tests[:, 1:])
    models = {"GPT": (dl.GPT(len(kinds), positions=64), 0.02)}
    models["LSTM"] = (dl.Recurrent(nn.LSTM, len(kinds), hidden=128), 0.03)
    for name, (model, rate) in models.items():
        dl.fit(lesson, model, data, 400, rate, rows=64)
        bits = dl.mean_loss(model, data.x_test, data.y_test) / math.log(2)
        yield f"{name} on single characters, bits a character", f"{bits:.2f}"

    pieces = dl.load_pieces(CPU)
    data, scale = pieces.data, 1 / math.log(2) / pieces.letters
    causal = dl.attention
    for name, mask in {"with": True, "without": False}.items():
        dl.attention = lambda q, k, v, causal, m=mask, f=dl.attention: f(q, k, v, m)
        gpt = dl.GPT(dl.load_tokenizer().get_vocab_size(), positions=16)
        losses, _ = dl.fit(lesson, gpt, data, 400, rate=0.02, rows=64)
        logits = torch.cat([dl.predict(gpt, x)[:, -1] for x in data.x_test.split(100)])
        last = F.cross_entropy(logits, data.y_test[:, -1]).item()
        dl.attention = causal
        told = f"GPT {name} the mask, bits a character: the last of its training"
        yield told, f"{scale * mean(losses[-20:]):.2f}"
        told = f"GPT {name} the mask: unseen, the last place, where none is to be seen"
        yield told, f"{scale * last:.2f}"


def random_bert(seed):
    """A BERT as large as bert-mini that has learned nothing, with its tokenizer."""
    tokenizer, model = dl.load_pretrained("BERT")
    torch.manual_seed(seed)
    return tokenizer, type(model)(model.config).eval().requires_grad_(False)


def masks():
    rows = dl.sentences("masked")
    texts = []
    for left, _, right in rows:
        near = [*left.split()[2:], "[MASK]", *right.split()[:2]]
        texts.append(" ".join(near) + ".")
    hidden = [word for _, word, _ in rows]
    for name, bert in (
        ("bert-mini", dl.load_pretrained("BERT")),
        ("a random BERT", random_bert(0)),
    ):
        found = dl.count_found(bert, texts, hidden)
        yield f"{name}: of {len(rows)} words, found by two and two", found

    for name, mark in {"as printed": '"', "without quotation marks": ""}.items():
        pairs = [[s.replace('"', mark) for s in pair] for pair in dl.sentences("pairs")]
        half, bert = len(pairs) // 2, dl.load_pretrained("BERT")
        strangers = [[pairs[n][0], pairs[n - half][1]] for n in range(len(pairs))]
        said = torch.cat([dl.follows(bert, pairs), ~dl.follows(bert, strangers)])
        yield f"next sentence, {name}: % right", f"{100 * said.float().mean():.1f}"


def told_apart(bert, which):
    """Of how many words the sense is told, by one of the sentence's vectors."""
    tokenizer, model = bert
    right = 0
    for word, three in dl.sentences("senses").items():
        ids, states, _ = dl.features(bert, three)
        sign = {"word": word, "[SEP]": "[SEP]", "others": word}[which]
        here = ids == tokenizer.convert_tokens_to_ids(sign)
        vectors = states[here]
        if which == "others":  # the mean of what the embedding has for each
            table = model.get_input_embeddings()
            special = [
                tokenizer.convert_tokens_to_ids(s) for s in tokenizer.all_special_tokens
            ]
            left = (~here & ~torch.isin(ids, torch.tensor(special)))[..., None]
            vectors = (table(ids) * left).sum(1) / left.sum(1)
        near, far = F.cosine_similarity(vectors[:1], vectors[1:]).tolist()
        right += near > far
    return right


def senses():
    mini = dl.load_pretrained("BERT")
    yield "bert-mini, the word's vector: of 10 words", told_apart(mini, "word")
    yield "bert-mini, the vector of [SEP]", told_apart(mini, "[SEP]")
    yield "the other words' vectors before any attention", told_apart(mini, "others")
    counts = [told_apart(random_bert(seed), "word") for seed in range(20)]
    yield "random BERTs, mean of 20", f"{mean(counts):.1f}, at most {max(counts)}"


def opinions():
    counts = []
    for seed in range(10):
        torch.manual_seed(seed)
        right = 0
        for feeling in ("POSITIVE", "NEGATIVE"):
            for sentence in dl.sentences(feeling):
                right += dl.judge(dl.shuffle_words(sentence))[0] == feeling
        counts.append(right)
    told = f"{mean(counts):.1f}, from {min(counts)} to {max(counts)}"
    yield "of 40 with shuffled words, mean of ten orders", told


PARTS = {
    "3.3": shift,
    "3.6": depth,
    "4.2": gradients,
    "4.3": memory,
    "5.2": recall_by_gpt,
    "5.3": novel,
    "5.10": masks,
    "5.11": senses,
    "5.12": opinions,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        torch.manual_seed(0)
        for what, number in PARTS[part]():
            print(f"{part:5} {what}: {number}", flush=True)
