"""Several models with real workers, and an adapter in the real engine."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from inferq.credentials import KeyRing
from tests.conftest import api_client, make_settings
from tests.processes import ROOT, stack, until
from tests.redis_server import RedisServer

real = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
BASE = "models/demo-mistral"
RANK = 4


def answer(client: FlaskClient, **body: Any) -> str:
    said = client.post("/v1/jobs", json={"max_tokens": 16, "temperature": 0, **body}, headers={"Prefer": "wait=60"})
    assert said.status_code == 200, said.text
    assert said.json["status"] == "completed", said.json["error"]
    return str(said.json["output"]["text"])


def test_a_worker_serves_one_engine(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url, models="small=org/small, large=org/large", model_name="small", simulated_step=0.001
    )
    with own_redis_server.client() as client, stack(settings, tmp_path) as running:
        key = KeyRing(client).create("acme")
        workers = [running.worker(), running.worker(model_name="org/large")]
        for worker in workers:
            until(lambda worker=worker: "engine_ready" in worker.output(), 60, "the worker is ready")
        with api_client(settings, key) as api:
            for number in range(4):
                assert answer(api, prompt=f"one {number}", model="small")
                assert answer(api, prompt=f"one {number}", model="large")
        for worker in workers:
            assert worker.output().count("attempt_ended") == 4


def write_adapter(directory: Path, scale: float) -> None:
    """A LoRA adapter of the demo model in the form of the peft library, with random weights."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((ROOT / BASE / "config.json").read_text())
    hidden, heads, kept = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, size in (("q_proj", heads * head), ("v_proj", kept * head)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(RANK, hidden, generator=generator)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(size, RANK, generator=generator) * scale
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "base_model_name_or_path": BASE,
    }
    (directory / "adapter_config.json").write_text(json.dumps(said))


@pytest.fixture
def adapters(tmp_path: Path) -> str:
    write_adapter(tmp_path / "wild", 1.0)
    write_adapter(tmp_path / "none", 0.0)
    return f"demo={BASE}, wild=demo+{tmp_path / 'wild'}, none=demo+{tmp_path / 'none'}"


class TestAdapters:
    pytestmark = real

    def test_they_answer_beside_their_base(self, own_redis_server: RedisServer, tmp_path: Path, adapters: str) -> None:
        settings = make_settings(
            own_redis_server.url,
            models=adapters,
            model_name="demo",
            engine="vllm",
            max_model_len=256,
            max_num_seqs=4,
            cpu_kv_cache_gib=0.25,
        )
        with own_redis_server.client() as client, stack(settings, tmp_path) as running:
            key = KeyRing(client).create("acme")
            worker = running.worker()
            until(lambda: "engine_ready" in worker.output() or not worker.alive(), 180, "the engine is ready")
            with api_client(settings, key) as api:
                base, wild, none = (
                    answer(api, prompt="What is inferq?", model=model) for model in ("demo", "wild", "none")
                )
        assert none == base, "an adapter that adds nothing"
        assert wild != base

    def test_a_directory_without_one_stops_the_start(self, own_redis_server: RedisServer, tmp_path: Path) -> None:
        settings = make_settings(
            own_redis_server.url, models=f"demo={BASE}, bad=demo+{tmp_path}", model_name="demo", engine="vllm"
        )
        with stack(settings, tmp_path) as running:
            worker = running.worker()
            assert worker.wait(120) != 0
            last = worker.output().splitlines()[-1]
            assert last == (
                "inferq worker: the engine cannot start with MODEL_NAME=demo:"
                f" MODELS: {tmp_path} holds no LoRA adapter (adapter_config.json with r)"
            )
