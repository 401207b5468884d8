"""The front matter of the model card: what the hub reads, lists and links."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unspoiled.checkpoints import UNLISTED
from unspoiled.evaluate import (
    ADVICE_PREFIX,
    DOMAIN_PREFIX,
    INVALID,
    LOSS_PREFIX,
    OVER_REFUSAL,
    REFUSAL,
    SAFE_PREFIX,
    TASK_PREFIX,
    Mean,
    Rate,
    Results,
)
from unspoiled.report._card_inputs import CardInputs
from unspoiled.report._hostile_text import visible
from unspoiled.report._wording import count, measure_name


def metadata(inputs: CardInputs) -> dict[str, Any]:
    """Return the front matter as plain values, in the hub's words.

    Only models that are on the hub are in `base_model`: a name of a local directory would link to a stranger's model.
    The license is stated if every input's card states one: the same where they agree, else `other` and all names.
    """
    linked = list(dict.fromkeys(_line(model.hub_id) for model in inputs.models if model.hub_id is not None))
    relation = {"base_model": linked, "base_model_relation": "merge"} if linked else {}
    measured = {} if inputs.results is None else {"model-index": [_index(inputs.name, inputs.results, inputs.winner)]}
    return {
        **relation,
        **_license([model.license for model in inputs.models]),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "mergekit", "unspoiled"],
        **measured,
    }


def _license(stated: list[str | None]) -> dict[str, str]:
    names = sorted({_line(name) for name in stated if name is not None})
    if None in stated or not names:
        return {}
    if len(names) == 1 and not names[0].startswith(UNLISTED):
        return {"license": names[0]}
    own = (name.removeprefix(UNLISTED).lower() for name in names)
    slug = "-and-".join(re.sub(r"[^a-z0-9.]+", "-", name).strip("-") for name in own)
    return {"license": "other", "license_name": slug}


def _index(name: str, results: Results, winner: str | None) -> dict[str, Any]:
    scores = results.models[winner or ""]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    numbers: Mapping[str, Rate | Mean] = {**scores.rates, **scores.means}
    for measure, number in numbers.items():
        value = number.rate if isinstance(number, Rate) else number.mean
        ends = f"{number.low:.4f} to {number.high:.4f}"
        found.setdefault(_dataset(measure), []).append(
            {
                "type": _kind(measure),
                "value": round(value, 4),
                "name": f"{_line(measure_name(measure))}, 95% interval {ends}, n {count(number)}",
            }
        )
    return {
        "name": _line(name),
        "results": [
            {
                "task": {"type": "text-generation", "name": "Text generation"},
                "dataset": {"type": kind, "name": title},
                "metrics": metrics,
            }
            for (kind, title), metrics in found.items()
        ],
    }


def _kind(measure: str) -> str:
    """Return a metric's type: accuracy for domains and tasks, else the measure without the guard's or domain's name."""
    if measure.startswith((DOMAIN_PREFIX, TASK_PREFIX)):
        return "accuracy"
    return measure.partition(":")[0]


def _dataset(measure: str) -> tuple[str, str]:
    """Return the type and the name of what a measure was taken on; they are the user's own test sets."""
    if measure == REFUSAL or measure.startswith((SAFE_PREFIX, ADVICE_PREFIX)):
        return "unsafe-test-prompts", "unsafe test prompts"
    if measure == OVER_REFUSAL:
        return "harmless-test-prompts", "harmless test prompts"
    if measure == INVALID:
        return "test-prompts", "unsafe and harmless test prompts"
    for prefix, what in ((DOMAIN_PREFIX, "test questions"), (LOSS_PREFIX, "test questions"), (TASK_PREFIX, "task")):
        if measure.startswith(prefix):
            name = _line(measure.removeprefix(prefix))
            return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "task", f"{name} {what}"
    return "test-prompts", "test prompts"


def _line(text: str) -> str:
    return " ".join(visible(text).split())
