"""The random checkpoint is what an engine expects of an AWQ model, and its tokenizer has a word for every token."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch comes with vLLM")

TWIN = ROOT / "models" / "demo-mistral-awq"


def test_random_weights_have_the_names_shapes_and_types_of_a_real_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = json.loads((TWIN / "config.json").read_text())
    longer = config | {"vocab_size": config["vocab_size"] + 100}
    (tmp_path / "config.json").write_text(json.dumps(longer))
    command = [sys.executable, str(ROOT / "models" / "random_reference.py"), "--out", str(tmp_path / "out")]
    subprocess.run([*command, "--config", str(tmp_path / "config.json")], check=True, capture_output=True, timeout=120)

    real, made = (load_file(where / "model.safetensors") for where in (TWIN, tmp_path / "out"))
    words = "model.embed_tokens.weight"
    assert made.pop(words).shape == (real.pop(words).shape[0] + 100, config["hidden_size"])
    assert {name: (one.shape, one.dtype) for name, one in made.items()} == {
        name: (one.shape, one.dtype) for name, one in real.items()
    }


def test_every_token_is_a_word(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    specification = importlib.util.spec_from_file_location("made", ROOT / "models" / "random_reference.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    (tmp_path / "tokenizer.json").write_text(json.dumps(module.tokenizer(1000)))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 1000
    assert tokenizer.decode([900, 901]) == " w900 w901"
    plain = Tokenizer.from_file(str(ROOT / "models" / "demo-mistral" / "tokenizer.json"))
    assert tokenizer.encode("What is a job? w900").ids == plain.encode("What is a job? w900").ids, (
        "as the demo model reads"
    )
