"""The models that are served: their public names, and which engine serves which."""

import re
from dataclasses import dataclass
from typing import Final, Self

#: A public name; an engine's name becomes part of Redis keys and of a Celery queue's name.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model. Adapters (LoRA, https://arxiv.org/abs/2106.09685) are served by the engine of their base model."""

    #: What clients call it.
    name: str
    #: The public name of the base model: what queue, workers and metrics call the engine.
    engine: str
    #: The base model's weights: a directory, or a repository of a model hub.
    checkpoint: str
    #: The directory of an adapter's weights; "" for a base model.
    adapter: str = ""

    @property
    def source(self) -> str:
        """What determines the output besides the request, for the cache."""
        return f"{self.checkpoint}+{self.adapter}" if self.adapter else self.checkpoint


class Catalogue(tuple[Model, ...]):
    """The models, in the order in which they were given."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name=checkpoint, adapter=name+directory, ...``; raises ValueError that says what is wrong."""
        found: dict[str, Model] = {}
        for part in (part.strip() for part in text.split(",")):
            name, equals, said = (word.strip() for word in part.partition("="))
            if not equals or not said or not _NAME.fullmatch(name):
                raise ValueError(
                    "must be name=checkpoint with commas between; a name is up to 64 letters, digits, dots, underscores"
                    " and dashes"
                )
            if name in found:
                raise ValueError(f"names {name} twice")
            base, plus, adapter = said.partition("+")
            if plus and base in found:
                if found[base].adapter or not adapter:
                    raise ValueError(f"{name} must be the name of a base model, a plus, and an adapter's directory")
                found[name] = Model(name=name, engine=base, checkpoint=found[base].checkpoint, adapter=adapter)
            else:
                found[name] = Model(name=name, engine=name, checkpoint=said)
        if len({one.checkpoint for one in found.values() if not one.adapter}) < len(
            {one.engine for one in found.values()}
        ):
            raise ValueError("must not serve a checkpoint under two names")
        return cls(found.values())

    @classmethod
    def of_one(cls, checkpoint: str) -> Self:
        """Return the catalogue of one model, which has the last part of its checkpoint for a name."""
        name = checkpoint.rstrip("/").rsplit("/", 1)[-1]
        return cls([Model(name=name, engine=name, checkpoint=checkpoint)])

    def find(self, name: str) -> Model | None:
        """Return the model that clients call ``name``."""
        return next((one for one in self if one.name == name), None)

    def base(self, said: str) -> Model | None:
        """Return the base model that ``said`` names, by its public name or its checkpoint."""
        return next((one for one in self if not one.adapter and said in (one.name, one.checkpoint)), None)

    def adapters(self, engine: str) -> list[Model]:
        """Return the adapters that an engine serves beside its base model."""
        return [one for one in self if one.engine == engine and one.adapter]

    @property
    def names(self) -> list[str]:
        """The public names."""
        return [one.name for one in self]
