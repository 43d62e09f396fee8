"""The reference, Mistral-7B AWQ on a T4: one preset, and a page whose figures follow from the model's sizes."""

import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.memory import GIB, PAGE, PRESET, cache_tokens, page, preset, reference
from deploy.memory import Shape as ModelShape
from inferq.requests import GenerationRequest
from inferq.settings import Settings
from tests.processes import ROOT
from workers.timing import PRESETS

MODELS = ROOT / "models"
#: What compose alone reads.
FOREIGN = {"COMPOSE_PROFILES": "gpu"}


def given() -> dict[str, str]:
    return {name: value for name, value in preset().items() if name not in FOREIGN}


def test_the_preset_can_be_loaded_and_is_what_inferq_does_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    loaded, defaults = Settings(_env_file=PRESET), Settings(_env_file=None)
    assert {name.lower() for name in given()} <= loaded.model_fields_set
    assert loaded == defaults
    assert {name: preset()[name] for name in FOREIGN} == FOREIGN


def test_compose_passes_on_whatever_the_preset_sets() -> None:
    passed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-environment"]
    assert set(given()) <= {name for name, value in passed.items() if "${" in value}


def test_the_example_of_settings_says_the_same() -> None:
    example = preset(ROOT / ".env.example")
    assert {name: example[name] for name in given()} == given()


def test_the_page_s_tables_are_current() -> None:
    text = PAGE.read_text()
    assert text == page(text), "python -m deploy.memory"


@pytest.mark.parametrize("name", ["demo-mistral", "demo-mistral-awq"])
def test_the_reckoning_is_right_for_checkpoints_that_are_here(name: str) -> None:
    shape = ModelShape.of(json.loads((MODELS / name / "config.json").read_text()))
    with Path(MODELS, name, "model.safetensors").open("rb") as file:
        head = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(head))
    tensors.pop("__metadata__", None)
    assert shape.weight_bytes == sum(end - begin for begin, end in (one["data_offsets"] for one in tensors.values()))


def test_figures_in_the_page_s_sentences_follow_from_the_tables() -> None:
    shape, settings, text = reference(), given(), re.sub(r"\s+", " ", PAGE.read_text())
    tokens = cache_tokens(shape, float(settings["GPU_MEMORY_UTIL"]), 1.5)
    sequences, length = int(settings["MAX_NUM_SEQS"]), int(settings["MAX_MODEL_LEN"])
    longest = json.loads((ROOT / "deploy/presets/mistral-7b-instruct-v0.2-awq/config.json").read_text())
    longest = longest["max_position_embeddings"]
    (vllm,) = re.findall(r"^vllm==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert tokens < sequences * length, "or the page's sentence of those that do not fit is wrong"
    for said in (
        f"sixteen sequences have room if they have some {round(tokens / sequences, -2):,.0f} tokens each",
        f"with {2 * sequences}, each has room for some {round(tokens / 2 / sequences, -2):,.0f} tokens",
        f"the model's {longest:,} tokens would take {longest * shape.token_bytes / GIB:.0f} GiB",
        f"about {1000 * PRESETS['t4-mistral-7b-awq'].sequence_s:.1f} ms",
        f"the default `max_tokens` of {GenerationRequest(prompt='any').max_tokens}",
        f"vllm=={vllm}+cu129",
        f"https://wheels.vllm.ai/{vllm}/cu129",
        f"| `MAX_MODEL_LEN` | {length} |",
        f"| `MAX_NUM_SEQS` | {sequences} |",
        f"| `GPU_MEMORY_UTIL` | {settings['GPU_MEMORY_UTIL']} |",
    ):
        assert said in text
