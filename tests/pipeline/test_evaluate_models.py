"""`unspoiled evaluate`: any models on any test sets, with a task of lm-evaluation-harness, and nothing asked twice."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml

from command import unspoiled
from trained import DOMAINS, TrainedBunch
from unspoiled.checkpoints import ModelRef, open_model
from unspoiled.config import RuntimeConfig
from unspoiled.evaluate import read_outcomes
from unspoiled.files import read_jsonl
from unspoiled.pipeline._memory import Memory

_TWO_GUARDS = ["--guard", "policy={root}/base", "--guard", "policy={root}/aligned"]


def models(trained: TrainedBunch, *names: str) -> list[str]:
    paths = {"base": "base", "aligned": "aligned", "colours": f"base+{trained.root}/colours"}
    return [f"{name}={trained.root}/{paths[name]}" for name in names]


def task(folder: Path, trained: TrainedBunch) -> Path:
    """Write a local task of what the colours' expert was taught, and of one question that it answers wrongly."""
    rows = [{"asked": asked, "right": right} for asked, right in DOMAINS["colours"][:4]]
    rows.append({"asked": DOMAINS["colours"][0][0], "right": "purple"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    same = [{"id": str(i), "prompt": row["asked"], "answer": row["right"]} for i, row in enumerate(rows)]
    (folder / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    settings = {
        "task": "tiny_colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{asked}}",
        "doc_to_target": "{{right}}",
        "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder


def rights(folder: Path) -> list[str]:
    return [row["right"] for row in read_jsonl(folder / "rows.jsonl")]


@pytest.fixture
def datasets_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def refuse_to_open(*arguments: Any) -> None:
    raise AssertionError("a model was opened")


def test_two_models_are_measured_and_compared(
    trained: TrainedBunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(trained.config)
    arguments = ["evaluate", *models(trained, "base", "aligned"), "--config", tmp_path / "run.yaml"]
    arguments += ["--out", tmp_path / "out", "--device", "cpu"]
    done = unspoiled(*arguments)
    assert done.code == 0, done.err
    *tables, _, report = done.out.splitlines()  # the last lines hold paths
    assert report == f"Report: {tmp_path / 'out' / 'report.html'}"
    assert "Content-Security-Policy" in (tmp_path / "out" / "report.html").read_text()
    assert max(map(len, tables)) <= 80
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    rates = {name: scores["rates"] for name, scores in found["models"].items()}
    assert rates["aligned"]["refusal"]["rate"] > rates["base"]["refusal"]["rate"] == 0.0
    assert {(row["model"], row["baseline"]) for row in found["comparisons"]} == {("aligned", "base")}
    assert found["provenance"]["measured: gibberish"] == "beyond 30 nats per token"

    monkeypatch.setattr(Memory, "take", refuse_to_open)
    judged = unspoiled(*arguments, "--guard", "refusal-rules", "--guard", f"compact-guard={trained.root}/guard")
    assert judged.code == 0, judged.err  # a second guard costs no generation: no model was opened
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [list(scores["rates"])[:2] for scores in found["models"].values()] == [["refusal", "safe:compact-guard"]] * 2

    with pytest.raises(AssertionError, match="a model was opened"):  # another setting is another response
        unspoiled(*arguments, "--max-new-tokens", "17")


def test_a_task_of_the_harness_is_put_to_the_model_in_memory(
    trained: TrainedBunch, tmp_path: Path, datasets_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = task(tmp_path, trained)
    arguments = ["evaluate", *models(trained, "aligned", "colours"), "--out", tmp_path / "out", "--device", "cpu"]
    arguments += ["--task", "tiny_colours", "--tasks-folder", folder, "--max-new-tokens", "8"]
    done = unspoiled(*arguments, "--domain", f"same={folder}/same.jsonl")
    assert done.code == 0, done.err
    outcomes = read_outcomes(tmp_path / "out" / "evaluation" / "colours.jsonl")
    by_us = [o for o in outcomes if o.set == "domain:same"]
    by_harness = [o for o in outcomes if o.set == "task:tiny_colours"]
    assert [o.prompt for o in by_harness] == [o.prompt for o in by_us]
    assert [o.response.strip() for o in by_harness] == [o.response for o in by_us]  # the same words from both
    assert [o.correct for o in by_harness] == [o.response == right for o, right in zip(by_us, rights(folder))]
    assert {o.correct for o in by_harness} == {True, False}
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    rates = found["models"]["colours"]["rates"]
    assert rates["task:tiny_colours"]["rate"] == rates["domain:same"]["rate"]
    assert list(found["models"]["aligned"]["rates"]) == ["domain:same", "task:tiny_colours"]  # and nothing else

    done = unspoiled(*arguments)
    monkeypatch.setattr(Memory, "take", refuse_to_open)
    again = unspoiled(*arguments)
    assert (again.code, again.out) == (0, done.out)
    (folder / "rows.jsonl").write_text((folder / "rows.jsonl").read_text().replace("purple", "blue"))
    with pytest.raises(AssertionError, match="a model was opened"):  # with other rows it is another task
        unspoiled(*arguments)


def test_answers_of_other_versions_of_the_libraries_are_asked_for_again(
    trained: TrainedBunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_model(ModelRef.parse(str(trained.root / "base")))
    memory = Memory(RuntimeConfig(device="cpu"), "float32")
    before = memory.identity(source)
    assert memory.identity(source) == before
    monkeypatch.setattr(transformers, "__version__", "5.99")
    assert memory.identity(source) != before


def test_answers_are_by_likelihood_among_choices(trained: TrainedBunch, tmp_path: Path) -> None:
    done = unspoiled(
        "evaluate", *models(trained, "base"), "--domain", f"sounds={trained.root}/sounds-test.jsonl",
        "--out", tmp_path / "out", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert list(printed["models"]["base"]["rates"]) == ["domain:sounds"]
    assert list(printed["models"]["base"]["means"]) == ["loss:sounds"]
    rows = read_jsonl(trained.root / "sounds-test.jsonl")
    outcomes = read_outcomes(tmp_path / "out" / "evaluation" / "base.jsonl")
    assert all(o.response in row["choices"] for o, row in zip(outcomes, rows, strict=True))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to measure"),
        (["--unsafe", "{root}/none.jsonl"], "--unsafe {root}/none.jsonl: there is no such path"),
        (["--domain", "sounds={root}/none.jsonl"], "--domain sounds={root}/none.jsonl: there is no such path"),
        (["--task", "x", "--tasks-folder", "{root}/none"], "--tasks-folder {root}/none: there is no such path"),
        (["--harmless", "{root}/harmless.jsonl", "--guard", "llama-gard-3"], "llama-gard-3"),
        (
            ["--harmless", "{root}/harmless.jsonl", "--against", "other"],
            "--against 'other' is none of the models 'base'",
        ),
        (["--harmless", "{root}/harmless.jsonl", "--seeds", "3"], "give a temperature above 0"),
        (["--domain", "{root}/sounds-test.jsonl"], "write it as NAME=FILE"),
        (
            ["--domain", "a={root}/sounds-test.jsonl", "--domain", "a={root}/colours-test.jsonl"],
            "two domains are called 'a'",
        ),
        (["--harmless", "{root}/harmless.jsonl", *_TWO_GUARDS], "two guards are called 'policy'"),
        (["--harmless", "{root}/harmless.jsonl", "--guard", "refusal-rules=x"], "the rules need no model"),
        (["--harmless", "{root}/harmless.jsonl", "--guard", "policy="], "--guard 'policy=': write it as NAME"),
        (["--harmless", "{root}/harmless.jsonl", "--base", "{root}/none"], "the base: '{root}/none' does not exist"),
        (["--harmless", "{root}/harmless.jsonl", "base={root}/aligned"], "two models are called 'base'"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    trained: TrainedBunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setattr(Memory, "take", refuse_to_open)
    given = [argument.format(root=trained.root) for argument in arguments]
    done = unspoiled("evaluate", *models(trained, "base"), "--out", tmp_path / "out", *given)
    assert done.code not in (0, 1)
    assert told.format(root=trained.root) in done.err
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_model_without_a_chat_template_borrows_another_ones(trained: TrainedBunch, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(trained.root / "base", raw)
    settings = json.loads((raw / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (raw / "tokenizer_config.json").write_text(json.dumps(settings))
    (raw / "chat_template.jinja").unlink(missing_ok=True)
    asked = ["--harmless", trained.root / "harmless.jsonl", "--out", tmp_path / "out", "--device", "cpu", "--json"]
    refused = unspoiled("evaluate", f"raw={raw}", *asked)
    assert refused.code not in (0, 1)
    assert "has no chat template: name a model whose template it is to use" in refused.err
    beside = unspoiled("evaluate", f"base={raw}", *asked, "--base", raw)  # each on its own line, whatever its name
    assert f"  - base: '{raw}' has no chat template" in beside.err
    assert f"  - the base: '{raw}' has no chat template" in beside.err
    borrowed = unspoiled(
        "evaluate", f"raw={raw}", *models(trained, "base"), *asked, "--template", trained.root / "base"
    )
    assert borrowed.code == 0, borrowed.err
    found = json.loads(borrowed.out)["models"]
    assert found["raw"] == found["base"], "the same weights under the same template"


def test_sampled_responses_are_counted_by_their_prompts(trained: TrainedBunch, tmp_path: Path) -> None:
    done = unspoiled(
        "evaluate", *models(trained, "base"), "--harmless", trained.root / "harmless.jsonl", "--temperature", "1.5",
        "--seeds", "3", "--out", tmp_path / "out", "--device", "cpu", "--quiet", "--max-new-tokens", "8",
    )  # fmt: skip
    assert done.code == 0, done.err
    rate = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["base"]["rates"]["over_refusal"]
    assert (rate["n"], rate["families"]) == (12, 4)
    texts = {(o.id, o.seed): o.response for o in read_outcomes(tmp_path / "out" / "evaluation" / "base.jsonl")}
    assert len(set(texts.values())) > 4, "each seed draws its own"


def test_rows_that_seeds_would_weigh_unequally_are_refused(trained: TrainedBunch, tmp_path: Path) -> None:
    free = [{"prompt": "Tell me.", "answer": "a"}, {"prompt": "Say.", "answer": "b"}]
    rows = [*free, {"prompt": "Which?", "answer": "a", "choices": ["a", "b"]}]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = "mixed.jsonl: of 3 rows, 1 with 'choices' are answered once and the others 5 times"
    asked = ["--domain", f"mixed={tmp_path}/mixed.jsonl", "--temperature", "1", "--out", tmp_path / "out"]
    refused = unspoiled("evaluate", *models(trained, "base"), *asked, "--seeds", "5", "--device", "cpu")
    assert refused.code == 4
    assert told in refused.err
    once = unspoiled("evaluate", *models(trained, "base"), *asked, "--device", "cpu", "--max-new-tokens", "2")
    assert once.code == 0, once.err
    (tmp_path / "run.yaml").write_text(trained.config)
    changed = ["evaluate.seeds=5", "evaluate.temperature=1", f"domains.colours.test={tmp_path}/mixed.jsonl"]
    of_run = unspoiled("check", tmp_path / "run.yaml", *(part for one in changed for part in ("--set", one)))
    assert of_run.code == 4
    assert told in of_run.err


def test_a_guard_of_the_config_is_found_whether_or_not_the_run_measures_by_it(
    trained: TrainedBunch, tmp_path: Path
) -> None:
    model = os.path.relpath(trained.root / "guard", tmp_path)  # relative to the config
    strict, plain = ({"family": "compact-guard", "model": model, **more} for more in ({"threshold": 0.0}, {}))
    guards = yaml.safe_dump({"guards": {"compact-guard": strict, "second": plain}})
    (tmp_path / "run.yaml").write_text(trained.config + guards)
    done = unspoiled(
        "evaluate", *models(trained, "aligned"), "--config", tmp_path / "run.yaml", "--out", tmp_path / "out",
        "--guard", "compact-guard", "--guard", "second", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    rates = json.loads(done.out)["models"]["aligned"]["rates"]
    assert rates["safe:compact-guard"]["rate"] == 0.0, "from a threshold of 0 on, all is unsafe"
    assert rates["safe:second"]["rate"] > 0.0


def test_a_model_called_base_is_not_taken_for_the_base(trained: TrainedBunch, tmp_path: Path) -> None:
    done = unspoiled(
        "evaluate", f"base={trained.root}/aligned", f"other={trained.root}/base", "--base", trained.root / "base",
        "--harmless", trained.root / "harmless.jsonl", "--out", tmp_path / "out", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    provenance = json.loads(done.out)["provenance"]
    assert provenance["the base"] == provenance["model other"] != provenance["model base"]


@pytest.mark.parametrize(
    ("names", "metric", "told"),
    [
        (["tiny_colours/exact_match", "tiny_colours"], "exact_match", "'tiny_colours' is asked for twice"),
        (["tiny_colours/acc"], "exact_match", "has no metric 'acc': it has exact_match"),
        (["tiny_colours"], "ter", "less of 'ter' is better"),
    ],
)
def test_a_task_that_would_be_misread_is_refused(
    trained: TrainedBunch, tmp_path: Path, datasets_cache: None, names: list[str], metric: str, told: str
) -> None:
    folder = task(tmp_path, trained)
    text = (folder / "tiny.yaml").read_text().replace("metric: exact_match", f"metric: {metric}")
    (folder / "tiny.yaml").write_text(text)
    asked = [argument for name in names for argument in ("--task", name)]
    done = unspoiled("evaluate", *models(trained, "base"), *asked, "--tasks-folder", folder, "--out", tmp_path / "out")
    assert done.code not in (0, 1)
    assert told in done.err


def test_a_directory_that_holds_something_else_is_left_alone(trained: TrainedBunch, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "results.json").write_text("of a run")
    asked = ["--harmless", trained.root / "harmless.jsonl", "--out", tmp_path / "run"]
    done = unspoiled("evaluate", *models(trained, "base"), *asked)
    assert done.code == 6
    assert "['run.json'] and not an evaluation alone" in done.err
    assert (tmp_path / "run" / "results.json").read_text() == "of a run"


def test_without_a_base_it_is_said_that_gibberish_was_not_looked_for(trained: TrainedBunch, tmp_path: Path) -> None:
    asked = ["--harmless", trained.root / "harmless.jsonl", "--out", tmp_path / "out", "--device", "cpu"]
    done = unspoiled("evaluate", *models(trained, "base"), *asked)
    assert done.code == 0, done.err
    assert "gibberish was not looked for" in done.err
    assert "whether valid responses are gibberish" in (tmp_path / "out" / "report.html").read_text()
    with_base = unspoiled("evaluate", *models(trained, "base"), *asked, "--base", trained.root / "base")
    assert "gibberish was not looked for" not in with_base.err
    assert "whether valid responses are gibberish" not in (tmp_path / "out" / "report.html").read_text()
