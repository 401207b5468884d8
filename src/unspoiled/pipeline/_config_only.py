"""What can be checked of a config without its models and data."""

from __future__ import annotations

from unspoiled.checkpoints import ModelRef
from unspoiled.config import RunConfig
from unspoiled.data import require_known_languages
from unspoiled.guards import get_family
from unspoiled.pipeline._attempts import Attempts
from unspoiled.pipeline._opening import model_names, taxonomy_of, templates_of
from unspoiled.pipeline._space import require_method


def check_config(config: RunConfig) -> None:
    """Check names of models, the method of the search, the guards' families, the taxonomy and the texts of requests.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
    """
    attempts = Attempts()
    for name, text in model_names(config).items():
        attempts.make(lambda text=text: ModelRef.parse(text, relative_to=config.directory), of=name)  # type: ignore[misc]
    attempts.make(lambda: require_method(config))
    attempts.make(lambda: taxonomy_of(config))
    attempts.make(lambda: templates_of(config))
    if languages := config.generate.languages:
        attempts.make(lambda: require_known_languages(languages), of="generate")
    for name, guard in config.guards.items():
        attempts.make(lambda guard=guard: get_family(guard.family), of=f"guard {name}")  # type: ignore[misc]
    attempts.require_none()
