"""Train the demo model: a tiny Mistral that recites the sentences in facts.json.

It exists so that a machine without a GPU and without a model hub can run the real path (API, Redis, Celery,
vLLM) from end to end, and so that tests can expect exact sentences from a real engine. It knows nothing else:
a prompt it was not taught is answered with one fallback sentence.

    python models/train_demo.py --out models/demo-mistral

Three minutes on two CPU cores; needs torch, transformers, tokenizers and safetensors. The files have the
layout of Mistral-7B-Instruct on the hub, so every loader of that model loads this one.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralForCausalLM

HERE = Path(__file__).resolve().parent

UNK, BOS, EOS, INST, END_INST = "<unk>", "<s>", "</s>", "[INST]", "[/INST]"
SPECIAL_TOKENS = [UNK, BOS, EOS, INST, END_INST]
VOCAB_SIZE = 768  # 256 bytes, so that any text encodes, and about 500 merges learnt from the facts

# One user turn is "<s>[INST] question[/INST]". System text, if any, goes in front of the first question.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'assistant' -%}{{ message['content'] + eos_token }}"
    "{%- else -%}{{ '[INST] ' + ns.system + message['content'] + '[/INST]' }}{%- set ns.system = '' -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

# The sides of every linear layer are multiples of 128, so that 4-bit kernels (AWQ, Marlin) take them all.
ARCHITECTURE: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": SPECIAL_TOKENS.index(BOS),
    "eos_token_id": SPECIAL_TOKENS.index(EOS),
}

POOL_BATCHES = 8  # batches drawn at a time, to be sorted by length

SYSTEM_TEXTS = [
    "You are a helpful assistant.",
    "Answer briefly.",
    "You answer questions about inferq.",
    "Be kind.",
]
UNKNOWN_TEMPLATES = [
    "What is {}?", "What is a {}?", "Who is {}?", "How does {} work?", "How do I {}?", "Tell me about {}.",
    "Explain {}.", "Write a poem about {}.", "Translate {} into French.", "{}", "{}?", "Why {}?", "Prompt {}",
    "Summarise: {}", "Once upon a time {}", "What happens when {}?",
]  # fmt: skip
UNKNOWN_WORDS = [
    "the capital of France", "photosynthesis", "a cat", "music", "2 + 2", "the weather", "Python",
    "quantum computing", "the moon", "my order", "love", "bread", "a haiku", "Paris", "history", "the sea",
    "chess", "a recipe for soup", "Mars", "tennis", "hello world", "gradient descent",
    "the meaning of life", "a story", "München", "🙂", "天気", "an apple", "war and peace",
    "the stock market",
]  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A sentence the model knows: each of `prompts` (the first is the usual wording) must yield `answer`."""

    prompts: tuple[str, ...]
    answer: str


def load_facts(path: Path) -> tuple[list[Fact], str]:
    """Read facts.json: the facts, and the fallback sentence for any other prompt."""
    data = json.loads(path.read_text(encoding="utf-8"))
    facts = [Fact((item["prompt"], *item["also"]), item["answer"]) for item in data["facts"]]
    return facts, data["fallback"]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE over `texts`: common words become one token, anything else falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))]
    )
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"the facts yield {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    return tokenizer


class Curriculum:
    """An endless, seeded supply of (prompt ids, answer ids).

    Prompts appear as people and programs write them: raw or as a chat, with system text, an earlier turn,
    another case, stray blanks, a leading number. Prompts that are no known question teach the fallback.
    """

    def __init__(self, facts: list[Fact], fallback: str, tokenizer: Tokenizer, seed: int) -> None:
        """Draw from `facts`; equal seeds give equal examples."""
        self._facts = facts
        self._fallback = fallback
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._bos, self._eos, self._inst, self._end_inst = (
            SPECIAL_TOKENS.index(token) for token in (BOS, EOS, INST, END_INST)
        )

    def sample(self) -> tuple[list[int], list[int]]:
        """Draw one example; the answer ends with EOS."""
        question, answer = self._exchange()
        answer_ids = [*self._encode(answer), self._eos]
        # Twice where a caller renders the chat template to text and lets the tokenizer add BOS again.
        prefix = [self._bos] * (2 if self._chance(0.05) else 1)
        if self._chance(0.4):
            return prefix + self._encode(question), answer_ids
        if self._chance(0.1):
            earlier, reply = self._exchange()
            prefix += [*self._turn(earlier), *self._encode(reply), self._eos]
        elif self._chance(0.15):
            question = f"{self._random.choice(SYSTEM_TEXTS)}\n\n{question}"
        return prefix + self._turn(question), answer_ids

    def _turn(self, question: str) -> list[int]:
        return [self._inst, *self._encode(" " + question), self._end_inst]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _exchange(self) -> tuple[str, str]:
        if self._chance(0.15):
            return self._unknown_prompt(), self._fallback
        fact = self._random.choice(self._facts)
        prompt = fact.prompts[0] if self._chance(0.4) else self._random.choice(fact.prompts)
        return (self._disturb(prompt) if self._chance(0.3) else prompt), fact.answer

    def _disturb(self, prompt: str) -> str:
        """Write a known question a little differently."""
        changes: list[Callable[[str], str]] = [
            str.lower,
            lambda text: text.rstrip("?.!"),
            lambda text: " " * self._random.randint(1, 2) + text,
            lambda text: text + self._random.choice([" ", "\n", "  "]),
            lambda text: f"#{self._random.randint(0, 9999)} {text}",
            lambda text: f"{text} ({self._random.randint(0, 9999)})",
        ]
        for change in self._random.sample(changes, self._random.randint(1, 2)):
            prompt = change(prompt)
        return prompt

    def _unknown_prompt(self) -> str:
        subject = self._random.choice([self._common_words, self._invented_words, self._digits])()
        return self._random.choice(UNKNOWN_TEMPLATES).format(subject)

    def _common_words(self) -> str:
        return " ".join(self._random.choices(UNKNOWN_WORDS, k=self._random.randint(1, 3)))

    def _invented_words(self) -> str:
        letters = "aabcdeeefghiijklmnooprsttuuvwyz"
        lengths = [self._random.randint(2, 8) for _ in range(self._random.randint(1, 6))]
        return " ".join("".join(self._random.choices(letters, k=length)) for length in lengths)

    def _digits(self) -> str:
        return str(self._random.randint(0, 10**9))


def batches(curriculum: Curriculum, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (inputs, labels), both [size, longest]; labels are -100 on prompt and padding: no loss is due.

    Examples of like length share a batch, which saves a third of the work. Padding stands at the right and
    attention is causal, so no attention mask is needed.
    """
    while True:
        pool = [curriculum.sample() for _ in range(size * POOL_BATCHES)]
        pool.sort(key=lambda example: len(example[0]) + len(example[1]))
        groups = [pool[start : start + size] for start in range(0, len(pool), size)]
        for index in torch.randperm(len(groups)).tolist():
            yield collate(groups[index])


def collate(examples: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad (prompt ids, answer ids) pairs to (inputs, labels), both [len(examples), longest]."""
    longest = max(len(prompt) + len(answer) for prompt, answer in examples)
    inputs = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), -100, dtype=torch.long)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        inputs[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return inputs, labels


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 %, then a cosine down to 2 % of `peak`."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(model: MistralForCausalLM, curriculum: Curriculum, steps: int, batch_size: int, peak: float) -> None:
    """Teach `model` the curriculum in place, printing the mean loss (nats per answer token) as it goes.

    Matrix products run in bfloat16: faster, and the sentences come to survive an engine that runs in it.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    supply = batches(curriculum, batch_size)
    model.train()
    started, recent = time.monotonic(), 0.0
    for step in range(steps):
        inputs, labels = next(supply)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent += loss.item()
        if (step + 1) % 50 == 0:
            elapsed = time.monotonic() - started
            print(f"step {step + 1:5d}/{steps}  loss {recent / 50:.4f}  {elapsed:6.1f} s", flush=True)
            recent = 0.0


def recites(model: MistralForCausalLM, tokenizer: Tokenizer, prompt_ids: list[int], answer: str) -> bool:
    """Whether greedy decoding after `prompt_ids` gives exactly `answer` and EOS.

    Checked by feeding the answer and comparing each next token: as strict as generating, in one forward pass.
    """
    answer_ids = [*tokenizer.encode(answer, add_special_tokens=False).ids, SPECIAL_TOKENS.index(EOS)]
    inputs = torch.tensor([prompt_ids + answer_ids])
    with torch.no_grad():
        logits = model(input_ids=inputs, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
    return bool(torch.equal(logits.argmax(dim=-1), torch.tensor(answer_ids)))


def count_recited(model: MistralForCausalLM, tokenizer: Tokenizer, facts: list[Fact]) -> tuple[int, int, int]:
    """Count over every wording of every fact: recited from the raw prompt, from the chat form, all."""
    model.train(False)
    raw = chat = total = 0
    for fact in facts:
        for prompt in fact.prompts:
            total += 1
            raw += recites(model, tokenizer, tokenizer.encode(prompt).ids, fact.answer)
            chat += recites(model, tokenizer, tokenizer.encode(f"{INST} {prompt}{END_INST}").ids, fact.answer)
    return raw, chat, total


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` for people to read, too."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_checkpoint(out: Path, model: MistralForCausalLM, tokenizer: Tokenizer) -> None:
    """Write weights (float16), configuration and tokenizer in the layout of a Mistral on the hub."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    weights.pop("lm_head.weight", None)  # tied to the embedding
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # written 0600, which another user in a container cannot read
    write_json(out / "config.json", {**ARCHITECTURE, "torch_dtype": "float16"})
    ids = {"bos_token_id": ARCHITECTURE["bos_token_id"], "eos_token_id": ARCHITECTURE["eos_token_id"]}
    write_json(out / "generation_config.json", {"_from_model_config": True, **ids})
    names = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK}
    write_json(out / "special_tokens_map.json", {**names, "pad_token": EOS})
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "pad_token": EOS,
            "clean_up_tokenization_spaces": False,
            "model_max_length": ARCHITECTURE["max_position_embeddings"],
            "chat_template": CHAT_TEMPLATE,
        },
    )
    tokenizer.save(str(out / "tokenizer.json"))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the tiny Mistral that recites facts about inferq.")
    parser.add_argument("--out", type=Path, default=HERE / "demo-mistral", help="directory of the checkpoint")
    parser.add_argument("--facts", type=Path, default=HERE / "facts.json", help="what to recite")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak of the schedule")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (changes rounding)")
    return parser.parse_args()


def main() -> int:
    """Train, check every prompt, write the checkpoint; exit status 1 unless every sentence is recited."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    facts, fallback = load_facts(arguments.facts)
    texts = [text for fact in facts for text in (*fact.prompts, fact.answer)]
    tokenizer = train_tokenizer([*texts, fallback, *UNKNOWN_TEMPLATES])
    lengths = [len(tokenizer.encode(fact.answer, add_special_tokens=False)) for fact in facts]
    model = MistralForCausalLM(MistralConfig(**ARCHITECTURE))  # type: ignore[no-untyped-call]
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(facts)} facts of {min(lengths)} to {max(lengths)} tokens, {size / 1e6:.2f} M parameters")
    curriculum = Curriculum(facts, fallback, tokenizer, arguments.seed)
    train(model, curriculum, arguments.steps, arguments.batch_size, arguments.learning_rate)
    raw, chat, total = count_recited(model, tokenizer, facts)
    print(f"recited exactly: raw {raw}/{total}, chat {chat}/{total}")
    save_checkpoint(arguments.out, model, tokenizer)
    print(f"written to {arguments.out}")
    return 0 if raw == chat == total else 1


if __name__ == "__main__":
    raise SystemExit(main())
