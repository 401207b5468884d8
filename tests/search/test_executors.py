"""The executor of one process: one proposal at a time, when its result is waited for."""

import pytest
from scripted_evaluator import Bowl, Listed, study

from unspoiled.search import Evaluation, InProcess, Proposal


def proposal(number: int = 0) -> Proposal:
    return Listed.of_genomes([[0.1, 0.2]] * (number + 1))._left[number]


def test_a_proposal_is_tried_when_its_result_is_waited_for() -> None:
    bowl = Bowl()
    executor = InProcess(bowl)
    executor.submit(proposal())
    assert bowl.tried == [], "what is recorded as running before is on the dashboard while it runs"
    tried, found = executor.finished()
    assert tried == proposal()
    assert found == Bowl().evaluate(proposal())
    assert bowl.tried == [tried.recipe]


def test_there_is_one_slot() -> None:
    executor = InProcess(Bowl())
    assert executor.slots == 1
    executor.submit(proposal())
    with pytest.raises(RuntimeError, match="proposal 0 is not finished"):
        executor.submit(proposal(1))


def test_waiting_for_nothing_is_an_error_and_not_forever() -> None:
    with pytest.raises(RuntimeError, match="no proposal was submitted"):
        InProcess(Bowl()).finished()


def test_ctrl_c_ends_a_search_and_keeps_its_trials(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('study')}/study.db"

    class Interrupted(Bowl):
        def evaluate(self, proposal: Proposal) -> Evaluation | None:
            if proposal.number == 2:
                raise KeyboardInterrupt
            return super().evaluate(proposal)

    with pytest.raises(KeyboardInterrupt):
        study(url).run(Listed.of_genomes([[0.1, 0.2]] * 4), InProcess(Interrupted()))
    assert [trial.proposal for trial in study(url).trials] == [0, 1]
