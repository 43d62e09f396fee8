"""What is asked: prompts of the demo model whose answers are longer than the 64 tokens that are asked for."""

from collections.abc import Iterator
from itertools import count
from typing import Any

#: Tokens of every answer.
ANSWER_TOKENS = 64

_QUESTIONS = ("What happens when a worker dies?", "How are tenants kept fair?", "Follow a job through inferq.")


def job_bodies(model: str) -> Iterator[dict[str, Any]]:
    """Yield requests without end, no two alike, so that none is answered from a cache or shares a run."""
    for number in count():
        question = _QUESTIONS[number % len(_QUESTIONS)]
        yield {"model": model, "prompt": f"#{number} {question}", "max_tokens": ANSWER_TOKENS, "temperature": 0.0}
