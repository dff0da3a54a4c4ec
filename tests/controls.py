"""Side figures: what else could have produced a number of the run? A minute.

python tests/controls.py [3.6 4.3 ...]      all, or those of some parts
"""

import collections
import math
import sys
from statistics import mean

import torch
import torch.nn.functional as F
from conftest import load
from torch import nn

dl = load()
lesson = dl.Lesson("cpu")
lesson.say = lambda *_: None  # it says nothing


def part_2_2():  # the loss on new letters rises: are fewer of them read?
    data = dl.load_letters(lesson.device)
    few = data._replace(x=data.x[:250], y=data.y[:250])
    mlp, losses, right = dl.build_mlp(16, 256, 256, 26), [], []

    def look():
        losses.append(dl.mean_loss(mlp, few.x_test, few.y_test))
        right.append(dl.accuracy(mlp, few.x_test, few.y_test))

    dl.train(lesson, mlp, dl.shuffled(few), steps=350, rate=0.0015, look=look)
    then = right[losses.index(min(losses))]
    told = "% of new letters: at the least loss, at the end"
    yield told, f"{then:.0f}, {right[-1]:.0f}"


def part_3_6():
    data = dl.load_letters(lesson.device)
    kinds = ((2, nn.Sequential), (20, nn.Sequential), (20, dl.Skip))
    right = []
    for depth, block in kinds:
        net = dl.build_deep(depth, block)
        F.cross_entropy(net(data.x[:1_000]), data.y[:1_000]).backward()
        first, last = (net[n][0].weight.grad.norm().item() for n in (1, -2))
        yield f"{depth} {block.__name__}: first gradient / last", f"{first / last:.1e}"
        dl.train(lesson, net, dl.shuffled(data), steps=1_500, rate=0.006)
        right.append(f"{dl.accuracy(net, *data[2:]):.1f}")
    yield "ten times the steps: 2, 20, 20 with skips, %", " ".join(right)


def recalled(model, rate, short_first):
    recall = nn.Sequential(model, dl.LastPlace())
    dl.train(lesson, recall, dl.recall_batches(lesson, short_first), 300, rate)
    symbols = torch.randint(8, (1_000, 100))
    return f"{dl.accuracy(recall, symbols, symbols[:, 0]):.1f}"


def part_4_3():
    for rate, short in ((0.02, False), (0.005, True)):
        lstm = dl.Recurrent(nn.LSTM, symbols=8, hidden=64)
        told = f"LSTM, {'' if short else 'no '}short ones first, rate {rate}: %"
        yield told, recalled(lstm, rate, short)
    rnn = dl.Recurrent(nn.RNN, symbols=8, hidden=64)
    rnn.cell = nn.RNN(64, 64, bias=False, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn.cell.weight_hh_l0)
    yield "ReLU RNN, from the identity, rate 0.003: %", recalled(rnn, 0.003, True)
    ones = nn.Embedding.from_pretrained(torch.eye(8))  # each symbol: a 1 and seven 0
    layers = ones, nn.Flatten(), nn.Linear(800, 8), nn.Unflatten(1, (1, 8))
    linear = nn.Sequential(*layers)
    yield "linear model of all 100 places: %", recalled(linear, 0.02, False)


def kneser_ney(n):  # Kneser and Ney 1995, interpolated, discount 0.75
    seen, unseen, letters = dl.load_pieces()
    counts = [None] * n + [collections.defaultdict(collections.Counter)]
    for place in range(n, len(seen)):
        counts[n][tuple(seen[place - n : place])][seen[place]] += 1
    for shorter in range(n - 1, -1, -1):  # in how many longer contexts each came
        counts[shorter] = collections.defaultdict(collections.Counter)
        for before, came in counts[shorter + 1].items():
            counts[shorter][before[1:]].update(came.keys())
    bits = []
    for place in range(3, len(unseen)):
        p = 1 / dl.load_tokenizer().get_vocab_size()
        for length in range(n + 1):
            came = counts[length].get(tuple(unseen[place - length : place]))
            if came:
                kept = max(came[unseen[place]] - 0.75, 0)
                p = (kept + 0.75 * len(came) * p) / came.total()
        bits.append(-math.log2(p))
    return f"{mean(bits) / letters:.2f}"


def part_5_3():
    told = "table of two pieces, Kneser-Ney: bits a character"
    yield told, kneser_ney(2)


@torch.no_grad()
def part_5_11():  # by the word, by [SEP], by the mean of the other words before reading
    tokenizer, trained = dl.load_pretrained("BERT")
    berts = {"bert-mini": [trained], "random weights, mean of 20": []}
    for _ in range(20):
        berts["random weights, mean of 20"].append(type(trained)(trained.config).eval())
    for name, some in berts.items():
        right = torch.zeros(3)
        for model in some:
            signs = torch.tensor(tokenizer.all_special_ids)
            for word, three in dl.sentences("senses").items():
                ids, states, _ = dl.features((tokenizer, model), three)
                number = tokenizer.convert_tokens_to_ids(word)
                others = (~torch.isin(ids, signs) & (ids != number)).float()[:, None]
                unread = (others @ model.bert.embeddings.word_embeddings(ids))[:, 0]
                ends = states[ids == tokenizer.sep_token_id]
                by = torch.stack([states[ids == number], ends, unread])
                alike = F.cosine_similarity(by[:, :1], by[:, 1:], dim=-1)
                right += alike[:, 0] > alike[:, 1]
        told = ", ".join(f"{n:.1f}" for n in right / len(some))
        yield f"{name}: of 10, by word, [SEP], the others unread", told


if __name__ == "__main__":
    known = [name[5:].replace("_", ".") for name in globals() if name[:5] == "part_"]
    for part in sys.argv[1:] or known:
        torch.manual_seed(0)
        for what, number in globals()[f"part_{part.replace('.', '_')}"]():
            print(f"{part:5} {what}: {number}", flush=True)
