"""Bodies shown in the OpenAPI document. A test sends each of them, and holds each answer to its shape."""

from typing import Any, Final

PLAIN: Final[dict[str, Any]] = {"prompt": "What happens when a worker dies?", "temperature": 0}

CHAT: Final[dict[str, Any]] = {
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "What is a lease?"},
    ],
    "max_tokens": 64,
    "seed": 7,
    "stop": ["\n\n"],
}

JSON_ANSWER: Final[dict[str, Any]] = {
    "prompt": "Name a city and its population.",
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
            "required": ["city", "population"],
        },
    },
}

TOLD: Final[dict[str, Any]] = {
    "prompt": "Summarise the minutes.",
    "webhook": {"url": "https://example.com/webhooks/inferq", "events": ["completed", "failed", "expired"]},
    "metadata": {"meeting": "2026-11-25"},
}

DATED: Final[dict[str, Any]] = {
    "prompt": "Is this review positive?",
    "max_tokens": 4,
    "priority": "low",
    "deadline": {"start_within_s": 60, "total_s": 300},
    "result_ttl_s": 3600,
}

#: What a job that has ended well looks like.
JOB: Final[dict[str, Any]] = {
    "id": "01a20a0d-5622-7cb3-a198-596cd62f6c30",
    "object": "job",
    "status": "completed",
    "terminal": True,
    "model": "demo-mistral",
    "priority": "normal",
    "attempt": 1,
    "queue": None,
    "cache": {"status": "miss", "age_s": None},
    "output": {"text": "When a worker dies, its heartbeat stops and its leases expire.", "finish_reason": "stop"},
    "error": None,
    "usage": {"prompt_tokens": 8, "completion_tokens": 14},
    "metrics": {"queue_s": 0.031, "ttft_s": 0.027, "run_s": 0.418, "total_s": 0.449},
    "created_at": "2026-11-25T01:46:25.123Z",
    "started_at": "2026-11-25T01:46:25.154Z",
    "completed_at": "2026-11-25T01:46:25.572Z",
    "expires_at": "2026-11-26T01:46:25.572Z",
    "metadata": None,
    "request_id": "01a20a0d-5622-7a41-8d4e-1f6f0f3f9a55",
    "urls": {
        "self": "/v1/jobs/01a20a0d-5622-7cb3-a198-596cd62f6c30",
        "cancel": "/v1/jobs/01a20a0d-5622-7cb3-a198-596cd62f6c30/cancel",
    },
}

QUEUED: Final[dict[str, Any]] = JOB | {
    "status": "queued",
    "terminal": False,
    "attempt": 0,
    "queue": {"position": 3, "eta_s": 1.2},
    "output": None,
    "usage": None,
    "metrics": {"queue_s": None, "ttft_s": None, "run_s": None, "total_s": None},
    "started_at": None,
    "completed_at": None,
    "expires_at": None,
}
