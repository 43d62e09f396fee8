"""The generation request: what a client may ask of an engine, validated once at the door."""

import json
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: Characters; far above any context window, below the body limit of 1 MiB.
MAX_PROMPT_CHARS = 1_000_000
MAX_STOPS = 16


class Strict(BaseModel):
    """Unknown fields, wrong types and NaN are errors; nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)


class JsonSchemaFormat(Strict):
    """Structured output: the answer must be JSON that satisfies the schema."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(min_length=1)

    @field_validator("json_schema")
    @classmethod
    def _portable(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            orjson.dumps(value)
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("numbers must be finite, and whole ones fit into 64 bits") from None
        return value


class Sampling(Strict):
    """How the engine picks tokens. Defaults are OpenAI's, except max_tokens."""

    max_tokens: int = Field(default=256, ge=1, le=1_000_000)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000_000, description="0 means all tokens")
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    stop: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(default=[], max_length=MAX_STOPS)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    response_format: JsonSchemaFormat | None = None


class GenerationRequest(Sampling):
    """Everything that reaches the engine, and nothing else."""

    model_config = ConfigDict(
        # What _one_input checks, for those who read the schema.
        json_schema_extra={
            "oneOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}}},
            ]
        }
    )

    model: str = Field(default="", max_length=200, description="empty: the default model")
    prompt: str | None = Field(default=None, min_length=1, max_length=MAX_PROMPT_CHARS)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self

    def generation_json(self) -> str:
        """Return the JSON of what reaches the engine, without defaults; a subclass's further fields stay out."""
        return self.model_dump_json(include=set(GENERATION_FIELDS), exclude_defaults=True)

    @property
    def estimated_prompt_tokens(self) -> int:
        """A cheap estimate (tokens): four characters a token, as English text has under common tokenizers."""
        texts = [self.prompt] if self.prompt is not None else [turn.content for turn in self.messages or []]
        return max(1, sum(len(text) for text in texts) // 4)

    @property
    def cost(self) -> int:
        """What the run may cost the engine, in tokens: estimated prompt tokens plus max_tokens."""
        return self.estimated_prompt_tokens + self.max_tokens

    @property
    def deterministic(self) -> bool:
        """Whether the same request should give the same text again: greedy, or seeded."""
        return self.temperature == 0 or self.seed is not None


#: The fields that reach the engine.
GENERATION_FIELDS: Final = frozenset(GenerationRequest.model_fields)
