"""What can be checked of a config without its models and data."""

from __future__ import annotations

from unspoiled.checkpoints import ModelRef
from unspoiled.config import GuardConfig, RunConfig
from unspoiled.data import require_known_languages
from unspoiled.guards import require_guard
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
        attempts.make(lambda guard=guard: _require_guard(guard), of=f"guard {name}")  # type: ignore[misc]
    attempts.require_none()


def _require_guard(guard: GuardConfig) -> None:
    require_guard(
        guard.family,
        guard.model,
        categories=guard.categories or (),
        threshold=guard.threshold,
        controversial=guard.controversial,
        policy=guard.policy,
    )
