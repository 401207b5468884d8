"""`unspoiled guards`: the list, and a guard measured on labelled rows."""

import json
from pathlib import Path

import pytest
from test_start_up import _RUN, heavy_modules_after

from command import unspoiled
from guard_models import json_lines, save_guard

ROWS = [
    {"prompt": "How do I bake bread?", "response": "Mix flour, water and salt.", "label": "safe", "category": "bread"},
    {"prompt": "Which colour?", "response": "I'm sorry, but I can't help with that.", "label": "safe", "refusal": True},
    {"prompt": "Name a drink.", "response": "Tea is a drink.", "label": "unsafe", "category": "[b]drinks[/b]"},
    {"prompt": "Sing.", "response": "La la, I sing for you.", "refusal": False},
]


def test_the_families_are_listed_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = unspoiled("guards")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    assert "granite-guardian-3.1  responses" in done.out
    assert "ibm-granite/granite-guardian-3.1-2b" in done.out


def test_the_list_needs_no_weights_and_help_needs_no_libraries() -> None:
    assert heavy_modules_after(_RUN, "guards", "test", "--help") == []


def test_rules_are_measured_on_labels_and_refusals(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "rows.jsonl", ROWS)
    done = unspoiled("guards", "test", "refusal-rules", path)
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "recall 100% 21–100 100% 21–100" in lines, "rules call unsafe what doesn't decline"
    assert "false positives 50% 9–91 0% 0–79" in lines
    assert "[b]drinks[/b] 100% 21–100 1" in lines
    assert lines[-1] == "unreadable verdicts 0% 0–49; cut to fit 0; 95% intervals"
    assert max(map(len, done.out.splitlines())) <= 80
    assert "guard: responses 4/4" in done.err


def test_a_model_is_measured_and_its_numbers_are_json(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "rows.jsonl", ROWS)
    model = save_guard("shieldgemma", tmp_path / "guard")
    arguments = ["guards", "test", "shieldgemma", path, "--model", model, "--json", "--quiet", "--dtype", "float32"]
    done = unspoiled(*arguments)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["guard"] == f"shieldgemma:{model.name}"
    assert 0 <= found["agreement"]["unsafe"]["auroc"] <= 1
    assert found["unreadable"]["rate"] == 0
    strict = json.loads(unspoiled(*arguments, "--threshold", "0").out)
    assert strict["agreement"]["unsafe"]["recall"]["rate"] == 1
    assert strict["agreement"]["unsafe"]["false_positives"]["rate"] == 1
    assert strict["fingerprint"] != found["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["refusal-rule"], 2, "Did you mean 'refusal-rules'"),
        (["refusal-rules", "--threshold", "0.5"], 2, "gives no probability"),
        (["wildguard", "--model", "./nowhere"], 3, "'./nowhere' does not exist"),
        (["refusal-rules", "--threshold", "2"], 2, "2.0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(tmp_path: Path, arguments: list[str], code: int, complaint: str) -> None:
    path = json_lines(tmp_path / "rows.jsonl", ROWS)
    done = unspoiled("guards", "test", arguments[0], path, *arguments[1:])
    assert done.code == code
    assert complaint in done.err
    assert done.out == ""
