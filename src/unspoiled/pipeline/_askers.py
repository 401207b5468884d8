"""Who writes questions: a model of the bunch, another one, or one behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unspoiled.checkpoints import ModelSource
from unspoiled.config import ServedModel
from unspoiled.files import hash_value
from unspoiled.inference import Generator, OpenAIGenerator

BENIGN_QUESTIONER = "benign questioner"


@dataclass(frozen=True)
class Asker:
    """A model that writes questions.

    Args:
        name: Its name, as rows record it.
        model: The opened model, or where it is served.
    """

    name: str
    model: ModelSource | ServedModel

    def fingerprint(self) -> str:
        """Return a hash of the weights; of a server's model, whose weights we can't see, of its address and name."""
        if isinstance(self.model, ServedModel):
            return hash_value(["served", self.model.url, self.model.model])
        return self.model.fingerprint()


def public_name(model: ModelSource | ServedModel) -> str:
    """Return a model's name without the path to it on this machine, or its server's address."""
    if isinstance(model, ServedModel):
        return f"{model.model}, served"
    ref = model.ref.adapter or model.ref
    return ref.path if not Path(ref.path).is_absolute() else Path(ref.path).name


def open_served(model: ServedModel) -> Generator:
    """Return a model behind an OpenAI-compatible server.

    Raises:
        ServerError: The `openai` package isn't installed, or the environment variable with the key isn't set.
    """
    return OpenAIGenerator(model)
