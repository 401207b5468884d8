"""How much of a winner's lead was luck: the split that it was picked by against the split that it never saw."""

from __future__ import annotations

from unspoiled.evaluate._results import Optimism, Rate
from unspoiled.evaluate._statistics import combined_interval


def optimism(measure: str, selection: Rate, test: Rate) -> Optimism:
    """Return how much higher a rate was on the selection split than on the test split, with its 95% interval.

    The splits share no prompt, so the interval is that of two independent rates, made from their own intervals; what
    these know of families holds for it too.

    Args:
        measure: Of what: a measure of models, or of the choice among finalists. Where low is good, a winner's luck
            shows as a negative difference.
        selection: The rate on the prompts that the winner was picked by.
        test: The rate on prompts that nothing touched before.

    Source: `combined_interval`.
    """
    low, high = combined_interval((selection.rate, selection.low, selection.high), (test.rate, test.low, test.high))
    return Optimism(
        measure=measure, selection=selection, test=test, difference=selection.rate - test.rate, low=low, high=high
    )
