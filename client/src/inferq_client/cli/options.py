"""What several commands are told."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from inferq_client import Prompt
from inferq_client.cli.ending import Exit
from inferq_client.cli.saying import say

Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="Where inferq is.  [env: INFERQ_URL]")]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="Others on this machine see it here; prefer the environment.  [env: INFERQ_API_KEY]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, as the service says it.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id.")]
Model = Annotated[str | None, typer.Option(help="The service's own when not given.")]
MaxTokens = Annotated[int | None, typer.Option(help="Of the answer; 256 when not given.")]
Temperature = Annotated[float | None, typer.Option(help="0 for the likeliest answer.")]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same answer.")]
Priority = Annotated[str | None, typer.Option(help="low, normal or high.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != []}


def prompt_of(text: str, system: str | None, *, chat: bool) -> Prompt:
    """Return what is asked; ``-`` is stdin."""
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        say("inferq: the prompt is empty")
        raise typer.Exit(Exit.USAGE)
    if system is None and not chat:
        return text
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": text}]


def pairs(texts: list[str]) -> dict[str, str] | None:
    """Read ``key=value`` texts."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"must be NAME=VALUE, not {text}", param_hint="--metadata")
        found[name] = value
    return found or None
