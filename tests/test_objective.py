"""J = CE_safety + α·CE_expert against the paper's formulas worked by hand."""

import math
from collections.abc import Sequence

import pytest

from unspoiled.data import Row, Split
from unspoiled.errors import DataError
from unspoiled.inference import Exchange, ResponseScore
from unspoiled.objective import Objective, split_objective


def row(prompt: str, group: str = "Self-Harm", split: Split = "search") -> Row:
    kind = "expert" if group in {"math", "law"} else "safety"
    return Row(prompt, kind, group, prompt, f"answer to {prompt}", "asker", "answerer", split)  # type: ignore[arg-type]


class TableScorer:
    """Gives each prompt's response the log-likelihood and the token count of a table."""

    def __init__(self, table: dict[str, tuple[float, int]]) -> None:
        self.table = table
        self.seen: list[Exchange] = []

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        self.seen += exchanges
        return [ResponseScore(*self.table[exchange.prompt.user]) for exchange in exchanges]


# per-token cross-entropies: a 3/3 = 1, b 8/2 = 4; c 2/4 = 0.5, d 9/3 = 3, e 5/2 = 2.5
SCORES = {"a": (-3.0, 3), "b": (-8.0, 2), "c": (-2.0, 4), "d": (-9.0, 3), "e": (-5.0, 2)}
SAFETY = [row("a"), row("b")]
EXPERT = [row("c", "math"), row("d", "math"), row("e", "law")]


def test_losses_are_means_over_rows_of_means_over_tokens() -> None:
    losses = Objective(SAFETY, EXPERT, alpha=0.3).evaluate(TableScorer(SCORES))
    assert losses.safety == pytest.approx((1 + 4) / 2)  # 11 nats over 5 tokens would be 2.2
    assert losses.expert == pytest.approx((0.5 + 3 + 2.5) / 3)  # rows alike, whatever their domain
    assert losses.domains == pytest.approx({"math": 1.75, "law": 2.5})
    assert losses.total == pytest.approx(2.5 + 0.3 * 2.0)


def test_the_cocktail_weighs_by_the_union_of_both_sets_and_knows_no_alpha() -> None:
    for alpha in (0.0, 0.3, 5.0):
        losses = Objective(SAFETY, EXPERT, alpha=alpha).evaluate(TableScorer(SCORES))
        assert losses.union == pytest.approx((1 + 4 + 0.5 + 3 + 2.5) / 5)


def test_without_alpha_only_safety_counts() -> None:
    assert Objective(SAFETY, EXPERT, alpha=0.0).evaluate(TableScorer(SCORES)).total == pytest.approx(2.5)


def test_the_response_is_scored_under_its_own_prompt_alone() -> None:
    scorer = TableScorer(SCORES)
    Objective(SAFETY, EXPERT, alpha=1.0).evaluate(scorer)
    assert [(e.prompt.user, e.prompt.system, e.prompt.prefix, e.response) for e in scorer.seen] == [
        (r.prompt, None, "", r.response) for r in [*SAFETY, *EXPERT]
    ]


def test_one_nan_makes_the_total_nan_and_never_a_good_loss() -> None:
    losses = Objective(SAFETY, EXPERT, alpha=0.3).evaluate(TableScorer({**SCORES, "d": (math.nan, 3)}))
    assert math.isnan(losses.total)
    assert math.isnan(losses.union)
    assert losses.safety == 2.5


def test_an_objective_takes_the_rows_of_its_split_alone() -> None:
    rows = [*SAFETY, row("x", split="selection"), *EXPERT, row("y", "math", split="selection")]
    assert split_objective(rows, "search", 0.3) == Objective(SAFETY, EXPERT, 0.3)
    assert [r.prompt for r in split_objective(rows, "selection", 0.3).safety] == ["x"]
    assert [r.prompt for r in split_objective(rows, "selection", 0.3).expert] == ["y"]


@pytest.mark.parametrize(("safety", "expert", "named"), [([], EXPERT, "D_safety"), (SAFETY, [], "D_expert")])
def test_a_set_without_rows_is_refused_not_scored_zero(safety: list[Row], expert: list[Row], named: str) -> None:
    with pytest.raises(DataError, match=f"{named} has no rows"):
        Objective(safety, expert, alpha=0.3)
