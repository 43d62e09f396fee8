"""MODELS: names, checkpoints, adapters; what is none is refused with a sentence."""

import pytest

from inferq.catalogue import Catalogue
from inferq.errors import ConfigurationError
from inferq.settings import load_settings

TWO = "small=org/small-7b, large=/models/large, legal=small+/adapters/legal"


def test_names_checkpoints_and_adapters() -> None:
    models = Catalogue.parse(TWO)
    assert models.names == ["small", "large", "legal"]
    small, _, legal = models
    assert (small.engine, small.checkpoint, small.adapter) == ("small", "org/small-7b", "")
    assert (legal.engine, legal.checkpoint, legal.adapter) == ("small", "org/small-7b", "/adapters/legal")
    assert len({one.source for one in models}) == 3
    assert models.find("legal") is legal
    assert models.find("org/small-7b") is None
    assert models.base("org/small-7b") is models.base("small") is small
    assert models.base("legal") is None
    assert models.adapters("small") == [legal]
    assert models.adapters("large") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("small", "must be name=checkpoint"),
        ("small=", "must be name=checkpoint"),
        ("=org/small", "must be name=checkpoint"),
        ("sm all=org/small", "must be name=checkpoint"),
        ("small=org/a,", "must be name=checkpoint"),
        ("small=org/a,small=org/b", "names small twice"),
        ("small=org/a,legal=small+", "a plus, and an adapter's directory"),
        ("small=org/a,legal=small+/l,more=legal+/m", "must be the name of a base model"),
        ("small=org/a,other=org/a", "a checkpoint under two names"),
    ],
)
def test_what_is_no_list_of_models_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^wrong setting: MODELS: .*{says}"):
        load_settings(_env_file=None, models=text)


def test_a_worker_serves_the_model_it_is_told_by_name_or_checkpoint() -> None:
    for said in ("large", "/models/large"):
        settings = load_settings(_env_file=None, models=TWO, model_name=said)
        assert (settings.public_model, settings.engine_queue) == ("large", "large")
        assert settings.served.checkpoint == "/models/large"
    first = load_settings(_env_file=None, models=TWO)
    assert first.public_model == "small"
    for wrong in ("legal", "org/other"):
        with pytest.raises(ConfigurationError, match=r"^wrong setting: MODEL_NAME: must be one of small, large"):
            load_settings(_env_file=None, models=TWO, model_name=wrong)


def test_without_a_list_there_is_the_one_model() -> None:
    settings = load_settings(_env_file=None, model_name="org/some-model")
    assert settings.catalogue.names == ["some-model"]
    assert settings.served.checkpoint == "org/some-model"
