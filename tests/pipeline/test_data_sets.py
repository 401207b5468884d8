"""Every data set has its own files and its own say, whatever it is called."""

from pathlib import Path
from typing import Any

import pytest

from command import unspoiled
from trained import TrainedBunch
from unspoiled.data import Row, Tally
from unspoiled.files import read_jsonl
from unspoiled.pipeline import _generate


def test_no_two_sets_of_answers_share_a_file(trained: TrainedBunch, tmp_path: Path) -> None:
    text = trained.config.replace("sounds: {model", "b-c: {model").replace("domain: sounds", "domain: a")
    text = text.replace("colours: {model", "c: {model").replace("domain: colours", "domain: a-b")
    text = text.replace("  colours: {examples", "  a-b: {examples").replace("  sounds: {examples", "  a: {examples")
    (tmp_path / "run.yaml").write_text(text)
    done = unspoiled("generate", tmp_path / "run.yaml")
    assert done.code == 0, done.err
    data = tmp_path / "run" / "data"
    for domain in ("a", "a-b"):
        asked = [row["text"] for row in read_jsonl(data / "questions" / f"{domain}.jsonl")]
        (answers,) = (data / "answers").glob(f"{domain}+*.jsonl")
        assert [row["prompt"] for row in read_jsonl(answers)] == asked


def test_a_domain_that_nothing_speaks_for_ends_the_run(
    trained: TrainedBunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _generate.expert_rows

    def all_cut_off(questions: Any, answers: Any, drawing: Any, **options: Any) -> tuple[list[Row], Tally]:
        if questions[0].group != "colours":
            return real(questions, answers, drawing, **options)
        tally = Tally()
        tally.count("truncated", "colours", 4)
        return [], tally

    monkeypatch.setattr(_generate, "expert_rows", all_cut_off)
    (tmp_path / "run.yaml").write_text(trained.config)
    done = unspoiled("generate", tmp_path / "run.yaml")
    assert done.code == 5, done.err
    assert "the domain 'colours' has no row left" in done.err
    assert "'truncated': 4" in done.err
