"""Who writes questions: a model of the bunch, another one, or one behind a server."""

from __future__ import annotations

from dataclasses import dataclass

from unspoiled.checkpoints import ModelSource
from unspoiled.config import ServedModel
from unspoiled.files import hash_value

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
    return model.ref.public_name
