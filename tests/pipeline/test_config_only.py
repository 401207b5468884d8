"""A config is checked without models, data or network: the paper's bunches are, and mistakes in them are found."""

import socket
from pathlib import Path
from typing import Any

import pytest

from command import unspoiled

PAPER = Path(__file__).parents[2] / "examples" / "paper"
CONFIGS = sorted(PAPER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_papers_three_bunches_are_there_with_its_questioner_and_guard() -> None:
    assert [path.stem for path in CONFIGS] == ["llama3-bio", "mistral-stem", "mistral-three"]
    for path in CONFIGS:
        text = path.read_text()
        assert "questioner: cognitivecomputations/dolphin-2.9-llama3-8b" in text
        assert "family: llama-guard-2" in text
        assert "meta-llama/Meta-Llama-Guard-2-8B" in text
        assert "alpha: 0.3" in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_passes_without_opening_anything(path: Path) -> None:
    done = unspoiled("check", "--config-only", path)
    assert (done.code, done.err) == (0, "")
    assert done.out == "No problem found in the config. Its models and data were not opened.\n"


def test_every_mistake_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.yaml").write_text("- Theft\n- Theft\n")
    text = CONFIGS[0].read_text()
    for good, bad in (
        ("family: llama-guard-2", "family: llama-gard-2"),
        ("method: ties", "method: tis"),
        ("taxonomy: beavertails", "taxonomy: taxonomy.yaml\n  languages: [xx]\n  templates: nowhere"),
        ("questioner: cognitivecomputations/dolphin-2.9-llama3-8b", "questioner: cognitivecomputations/dolphin@"),
    ):
        assert good in text
        text = text.replace(good, bad)
    (tmp_path / "run.yaml").write_text(text)
    done = unspoiled("check", "--config-only", tmp_path / "run.yaml")
    assert done.code == 4
    lines = done.err.splitlines()
    assert lines[0] == "Error: 6 problems before any work:"
    for problem in ("did you mean 'llama-guard-2'", "tis", "listed twice", "'xx'", "is no directory", "an empty part"):
        assert any(problem.lower() in line.lower() for line in lines[1:]), (problem, done.err)


def test_a_guard_that_nobody_defined_is_named_with_its_line(tmp_path: Path) -> None:
    text = CONFIGS[0].read_text().replace("guard: llama-guard-2\n", "guard: llama-guard-3\n")
    (tmp_path / "run.yaml").write_text(text)
    done = unspoiled("check", "--config-only", tmp_path / "run.yaml")
    assert done.code == 2
    assert "generate.guard: 'llama-guard-3' is not among the guards ['refusal-rules', 'llama-guard-2']" in done.err
