"""Scores kept in a log: computed once, read back, and damage named."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from unspoiled.errors import DataError
from unspoiled.inference import Exchange, KeptScorer, Prompt, ResponseScore


class Counting:
    """A scorer that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        self.asked += [exchange.response for exchange in exchanges]
        return [ResponseScore(-float(len(exchange.response)), 2) for exchange in exchanges]


def exchanges(*responses: str) -> list[Exchange]:
    return [Exchange(Prompt("Which?"), response) for response in responses]


def test_nothing_is_scored_twice_in_a_process_or_the_next(tmp_path: Path) -> None:
    scorer = Counting()
    kept = KeptScorer(tmp_path / "scores.jsonl", model="m", open=lambda: scorer)
    assert [score.log_likelihood for score in kept.score(exchanges("a", "bb", "a"))] == [-1.0, -2.0, -1.0]
    assert scorer.asked == ["a", "bb"]
    again = KeptScorer(tmp_path / "scores.jsonl", model="m", open=lambda: scorer)
    assert [score.log_likelihood for score in again.score(exchanges("ccc", "bb"))] == [-3.0, -2.0]
    assert scorer.asked == ["a", "bb", "ccc"]


def test_a_model_is_opened_only_for_what_is_missing_and_scores_are_its_own(tmp_path: Path) -> None:
    def never() -> Counting:
        raise AssertionError("opened")

    KeptScorer(tmp_path / "scores.jsonl", model="m", open=Counting).score(exchanges("a"))
    assert len(KeptScorer(tmp_path / "scores.jsonl", model="m", open=never).score(exchanges("a"))) == 1
    with pytest.raises(AssertionError, match="opened"):
        KeptScorer(tmp_path / "scores.jsonl", model="another", open=never).score(exchanges("a"))
    with pytest.raises(AssertionError, match="opened"):  # a part of a response is another exchange
        KeptScorer(tmp_path / "scores.jsonl", model="m", open=never).score([Exchange(Prompt("Which?"), "a", tokens=1)])


def test_what_was_scored_before_a_failure_is_kept(tmp_path: Path) -> None:
    class Failing(Counting):
        def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
            if self.asked:
                raise MemoryError
            return super().score(exchanges)

    many = exchanges(*(f"{i:03}" for i in range(300)))
    with pytest.raises(MemoryError):
        KeptScorer(tmp_path / "scores.jsonl", model="m", open=Failing).score(many)
    scorer = Counting()
    KeptScorer(tmp_path / "scores.jsonl", model="m", open=lambda: scorer).score(many)
    assert 0 < len(scorer.asked) < 300


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_likelihoods_that_are_no_numbers_are_refused_and_not_kept(tmp_path: Path, value: float) -> None:
    class Broken(Counting):
        def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
            return [ResponseScore(value if e.response == "b" else -1.0, 1) for e in exchanges]

    log = tmp_path / "scores.jsonl"
    with pytest.raises(DataError, match=r"response to 'Which\?' is (nan|-inf): .* Compute in float32"):
        KeptScorer(log, model="m", open=Broken).score(exchanges("a", "b"))
    assert not log.exists()


def test_a_torn_last_record_is_cut_off_and_said(tmp_path: Path) -> None:
    log = tmp_path / "scores.jsonl"
    KeptScorer(log, model="m", open=Counting).score(exchanges("a", "bb"))
    log.write_bytes(log.read_bytes()[:-5])
    told: list[str] = []
    scorer = Counting()
    KeptScorer(log, model="m", open=lambda: scorer, note=told.append).score(exchanges("a", "bb"))
    assert scorer.asked == ["bb"]
    assert len(told) == 1


def test_a_foreign_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text('{"key": "x"}\n')
    with pytest.raises(DataError, match=r"scores.jsonl:1: no score of ours .*log_likelihood"):
        KeptScorer(tmp_path / "scores.jsonl", model="m", open=Counting).score(exchanges("a"))
