"""The losses of merges on the rows that an audit goes by, each merge scored once and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unspoiled.config import Recipe
from unspoiled.data import Row, Split, spread_evenly
from unspoiled.errors import DataError, SearchError
from unspoiled.files import append_jsonl, hash_value, read_jsonl
from unspoiled.inference import Exchange, LiveBunch, Prompt

SAFETY, BENIGN, EXPERT_PREFIX = "safety", "benign", "expert:"
RowLosses = Mapping[str, Sequence[float]]
"""By term, the cross-entropy of each row, in nats per token."""


@dataclass(frozen=True)
class AuditRows:
    """The rows of an audit by term: `safety`, `benign` where there are such, `expert:DOMAIN`.

    Args:
        by_term: The rows of each term, at least one.
        refusal_tokens: Score only so many of the first tokens of the responses of D_safety and D_benign; None for all.
    """

    by_term: Mapping[str, Sequence[Row]]
    refusal_tokens: int | None = None

    @classmethod
    def of_split(cls, rows: Sequence[Row], split: Split, *, most: int, refusal_tokens: int | None) -> AuditRows:
        """Return at most so many rows of each term of one split, spread evenly over them.

        Raises:
            DataError: D_safety has no row there, so that there is no harm to find.
        """
        found: dict[str, list[Row]] = {}
        for row in rows:
            if row.split == split:
                found.setdefault(EXPERT_PREFIX + row.group if row.set == "expert" else row.set, []).append(row)
        if SAFETY not in found:
            raise DataError(f"D_safety has no row in the {split} split, which an audit goes by: generate more of them.")
        order = [SAFETY, *([BENIGN] if BENIGN in found else []), *sorted(found.keys() - {SAFETY, BENIGN})]
        return cls({term: spread_evenly(found[term], most) for term in order}, refusal_tokens)

    @property
    def terms(self) -> list[str]:
        """The terms, in the order of presentation."""
        return list(self.by_term)

    @cached_property
    def exchanges(self) -> Mapping[str, Sequence[Exchange]]:
        """What is scored, by term."""
        return {
            term: [
                Exchange(Prompt(row.prompt), row.response, None if row.set == "expert" else self.refusal_tokens)
                for row in own
            ]
            for term, own in self.by_term.items()
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is scored."""
        rows = [[term, [[row.prompt, row.response] for row in own]] for term, own in self.by_term.items()]
        return hash_value([rows, self.refusal_tokens])


class MergeLosses:
    """Scores recipes on the live model; each recipe once, also over the lives of several processes.

    Args:
        live: The bunch in memory; called when a recipe has to be merged.
        rows: What is scored.
        log: The JSONL file where losses are kept; None keeps them in this process alone.
        models: A hash of the models that recipes name.
        note: Called with what the user should know of the log.
    """

    def __init__(
        self,
        live: Callable[[], LiveBunch],
        rows: AuditRows,
        *,
        log: Path | None = None,
        models: str = "",
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.rows = rows
        self._live = live
        self._log = log
        self._models = models
        kept = read_jsonl(log, repaired=note) if log is not None and log.exists() else []
        self._found: dict[str, RowLosses] = {row["key"]: row["losses"] for row in kept}

    def of(self, recipe: Recipe) -> RowLosses:
        """Return the losses of a recipe's merge on every row.

        Raises:
            ConfigError: The method refuses the recipe.
            SearchError: A loss isn't finite.
        """
        key = hash_value([recipe.to_yaml(), self.rows.fingerprint, self._models])
        if key not in self._found:
            found = self._scored(recipe)
            if self._log is not None:
                append_jsonl(self._log, [{"key": key, "models": [e.model for e in recipe.models], "losses": found}])
            self._found[key] = found
        return self._found[key]

    def _scored(self, recipe: Recipe) -> RowLosses:
        backend = self._live().take_recipe(recipe)
        flat = [exchange for own in self.rows.exchanges.values() for exchange in own]
        scores = iter(backend.score(flat))
        found = {term: [next(scores).cross_entropy for _ in own] for term, own in self.rows.exchanges.items()}
        if wrong := [term for term, values in found.items() if not all(map(math.isfinite, values))]:
            models = ", ".join(entry.model for entry in recipe.models)
            raise SearchError(
                f"the loss {wrong[0]!r} of the merge of {models} is not finite, so that nothing can be told of who "
                "does what in it: check the experts with `unspoiled check`, or set `audit.enabled: false`."
            )
        return found


def mean_losses(found: RowLosses) -> dict[str, float]:
    """Return the mean of each term over its rows."""
    return {term: math.fsum(values) / len(values) for term, values in found.items()}
