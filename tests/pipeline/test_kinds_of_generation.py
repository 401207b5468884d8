"""Data from bunches of every kind: no aligned expert, a questioner on a server, a guard that is a model."""

import json
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from command import Finished, unspoiled
from trained import CATEGORIES, COMPLIANCE, UNSAFE, TrainedBunch
from unspoiled.data import read_dropped, read_rows
from unspoiled.files import read_jsonl
from unspoiled.guards import find_refusal
from unspoiled.inference import Prompt, TransformersBackend, load_chat_template, load_model


def generate(tmp_path: Path, text: str, *overrides: str) -> Finished:
    (tmp_path / "run.yaml").write_text(text)
    return unspoiled("generate", tmp_path / "run.yaml", *(arg for o in overrides for arg in ("--set", o)))


# --- no aligned expert ------------------------------------------------------------------------------------


@pytest.fixture
def unaligned(trained: TrainedBunch) -> str:
    """The config of a bunch whose experts comply with everything."""
    return trained.config.replace(f"    aligned: {{model: {trained.root}/aligned}}\n", "")


def test_without_an_aligned_expert_refusals_come_from_templates_and_say_so(unaligned: str, tmp_path: Path) -> None:
    done = generate(tmp_path, unaligned, "generate.fallback=templates")
    assert done.code == 0, done.err
    rows = read_rows(tmp_path / "run/data/safety.jsonl")
    assert len(rows) >= 4
    assert {row.answered_by for row in rows} == {"templates"}
    assert all(find_refusal(row.response) and row.verdicts[0].refusal for row in rows)
    assert {row.group for row in rows} == set(CATEGORIES)
    card = (tmp_path / "run/data/README.md").read_text()
    assert "refused by no model, with a refusal from a template" in card
    assert "| safety | templates |" in card


def test_without_refusals_and_fallback_the_run_ends_and_names_it(unaligned: str, tmp_path: Path) -> None:
    done = generate(tmp_path, unaligned)
    assert done.code == 5
    assert "no expert refused any of" in done.err
    assert "`generate.fallback: templates`" in done.err


# --- a questioner on a server -----------------------------------------------------------------------------


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve a model as OpenAI's chat completions do; yield the address and the requests that came."""
    model = TransformersBackend(load_model(directory, dtype=torch.float32), load_chat_template(directory))
    asked: list[dict[str, Any]] = []
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = {message["role"]: message["content"] for message in request["messages"]}
            prompt = Prompt(texts["user"], texts.get("system"), prefix=texts.get("assistant", ""))
            with one_at_a_time:
                asked.append(request)
                (sample,) = model.generate(
                    [prompt], max_new_tokens=request["max_tokens"], temperature=request["temperature"],
                    seed=request["seed"],
                )  # fmt: skip
            choice = {"index": 0, "message": {"role": "assistant", "content": sample.text}}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            reply["choices"] = [choice | {"finish_reason": "stop" if sample.finished else "length"}]
            body = json.dumps(reply | {"usage": {"completion_tokens": sample.tokens}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_questioner_behind_a_server_is_asked_once_for_each_reply(trained: TrainedBunch, tmp_path: Path) -> None:
    with served(trained.root / "questioner") as (url, asked):
        config = trained.config.replace(
            f"questioner: {trained.root}/questioner",
            f'questioner: {{url: "{url}", model: mine, server: llama.cpp, concurrency: 2}}',
        )
        done = generate(tmp_path, config)
        assert done.code == 0, done.err
        rows = read_rows(tmp_path / "run/data/safety.jsonl")
        requests = len(asked)
        assert requests >= 6
        assert {row.asked_by for row in rows} == {"questioner"}
        assert all(request["messages"][-1]["content"].startswith('{"question"') for request in asked), "we begin"
        (tmp_path / "run/data/questions/safety.jsonl").unlink()
        assert unspoiled("generate", tmp_path / "run.yaml", "--quiet").code == 0
        assert len(asked) == requests, "what was written is in the log of replies"
        assert read_rows(tmp_path / "run/data/safety.jsonl") == rows


def test_a_server_that_is_not_there_ends_the_run_by_name(trained: TrainedBunch, tmp_path: Path) -> None:
    config = trained.config.replace(
        f"questioner: {trained.root}/questioner", 'questioner: {url: "http://127.0.0.1:9/v1", model: mine, retries: 0}'
    )
    done = generate(tmp_path, config)
    assert done.code != 0
    assert "'mine' at http://127.0.0.1:9/v1: can't be reached" in done.err
    assert "Traceback" not in done.err


# --- vLLM -------------------------------------------------------------------------------------------------


class Engine:
    """Stands in for `vllm.LLM`, with transformers' model of the directory that it is given."""

    opened: ClassVar[list[Path]] = []

    def __init__(self, *, model: str, **_: Any) -> None:
        self.opened.append(Path(model))
        self._model = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def generate(self, prompts: list[dict[str, Any]], params: list[Any], *, use_tqdm: bool) -> list[Any]:
        return [self._write(prompt["prompt_token_ids"], own) for prompt, own in zip(prompts, params, strict=True)]

    def _write(self, ids: list[int], params: Any) -> Any:
        torch.manual_seed(params.seed % 2**31)
        sampled: dict[str, Any] = {"do_sample": True, "temperature": params.temperature, "top_k": 0}
        tokens = self._model.generate(
            torch.tensor([ids]), max_new_tokens=params.max_tokens, eos_token_id=params.stop_token_ids,
            **(sampled if params.temperature else {"do_sample": False}),
        )[0, len(ids) :].tolist()  # fmt: skip
        reason = "stop" if tokens[-1] in params.stop_token_ids else "length"
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason=reason)])


def test_vllm_writes_the_data_with_lora_experts_written_out_once(
    trained: TrainedBunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("vllm")
    module.__dict__.update(LLM=Engine, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)
    Engine.opened.clear()
    with torch.random.fork_rng(devices=[]):
        done = generate(tmp_path, trained.config, "runtime.engine=vllm")
    assert done.code == 0, done.err
    assert {row.answered_by for row in read_rows(tmp_path / "run/data/safety.jsonl")} == {"aligned"}
    written = {path for path in Engine.opened if path.is_relative_to(tmp_path)}
    assert len(written) == 2, "the two adapters"
    assert all(path.parent == tmp_path / "run" / "vllm" for path in written)
    assert {path for path in Engine.opened if path not in written} == {
        trained.root / name for name in ("questioner", "aligned", "base")
    }


def test_without_vllm_the_run_ends_with_what_to_install(
    trained: TrainedBunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    done = generate(tmp_path, trained.config, "runtime.engine=vllm")
    assert done.code == 7
    assert "pip install 'unspoiled[vllm]'" in done.err


# --- a guard that is a model ------------------------------------------------------------------------------


@pytest.fixture
def guarded(trained: TrainedBunch) -> str:
    """The config of a bunch whose answers a model judges."""
    guards = f"guards: {{small: {{family: compact-guard, model: {trained.root}/guard}}}}\n"
    return guards + trained.config.replace("generate:\n", "generate:\n  guard: small\n")


def test_a_model_judges_and_its_verdicts_are_kept(trained: TrainedBunch, guarded: str, tmp_path: Path) -> None:
    done = generate(tmp_path, guarded, "generate.target=best")
    assert done.code == 0, done.err
    data = tmp_path / "run/data"
    for row in read_rows(data / "safety.jsonl"):
        (verdict,) = row.verdicts
        assert (row.answered_by, verdict.label) == ("aligned", "safe")
        assert verdict.guard == "compact-guard:guard"
        assert verdict.template
        assert verdict.p_unsafe is not None
        assert verdict.p_unsafe < 0.5
    complied = [row for row in read_jsonl(data / "verdicts/safety+colours.jsonl") if row["label"] == "unsafe"]
    assert complied
    assert {row["text"].strip() for row in complied} == {"unsafe"}
    assert read_jsonl(data / "answers/safety+colours.jsonl")[0]["text"] == COMPLIANCE


def test_a_guard_of_another_family_is_refused_before_any_work(
    trained: TrainedBunch, guarded: str, tmp_path: Path
) -> None:
    done = generate(tmp_path, guarded.replace(f"model: {trained.root}/guard", f"model: {trained.root}/base"))
    assert done.code == 4
    assert "guard small: " in done.err
    assert "Check that the model is one of this family" in done.err
    assert not (tmp_path / "run").exists()


def test_a_guard_that_babbles_stops_the_run_and_leaves_no_data(
    trained: TrainedBunch, guarded: str, tmp_path: Path
) -> None:
    babbling = tmp_path / "babbling"
    shutil.copytree(trained.root / "guard", babbling)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig.from_pretrained(babbling)).save_pretrained(babbling)
    done = generate(tmp_path, guarded.replace(f"model: {trained.root}/guard", f"model: {babbling}"))
    assert done.code == 5
    assert re.search(
        r"guard 'compact-guard:.*babbling': \d+ of \d+ verdicts .* could not be read. One answer: ", done.err
    )
    assert not (tmp_path / "run/data/safety.jsonl").exists()


def test_a_run_reports_by_a_guard_that_did_not_choose_its_data(trained: TrainedBunch, tmp_path: Path) -> None:
    guards = f"guards: {{small: {{family: compact-guard, model: {trained.root}/guard}}}}\n"
    text = guards + trained.config.replace("evaluate:\n", "evaluate:\n  guards: [refusal-rules, small]\n")
    (tmp_path / "run.yaml").write_text(text)
    done = unspoiled(
        "run", tmp_path / "run.yaml", "--set", "search.strategies=[cocktail]", "--set", "search.finalists=1"
    )
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run/results.json").read_text())
    for name, scores in found["models"].items():
        rates = scores["rates"]
        assert [measure for measure in rates if measure.startswith("safe:")] == ["safe:small"]
        outcomes = read_jsonl(tmp_path / f"run/evaluation/{name}.jsonl")
        unsafe = [row for row in outcomes if row["set"] == "unsafe"]
        assert rates["safe:small"]["rate"] == sum(row["safe"]["small"] for row in unsafe) / len(unsafe)
        assert not any(row["safe"]["small"] for row in unsafe if row["defect"])
    aligned, colours = (found["models"][name]["rates"]["safe:small"]["rate"] for name in ("aligned", "colours"))
    assert aligned > colours
    assert found["provenance"]["guard"] == "refusal-rules-3 and compact-guard:guard"
    assert "(small)" in done.out
    page = (tmp_path / "run/report.html").read_text()
    assert "safe (small)" in page
    assert "(refusal-rules-3) also judged these answers" in page
    assert "only compact-guard:guard could see it" in page


# --- what is removed --------------------------------------------------------------------------------------


def test_what_repeats_a_test_prompt_is_dropped_listed_and_on_the_card(trained: TrainedBunch, tmp_path: Path) -> None:
    leaked = UNSAFE["Theft"][:2]
    tests = tmp_path / "unsafe.jsonl"
    tests.write_text("".join(json.dumps({"prompt": f"{text.rstrip('?')}??"}) + "\n" for text in leaked))
    done = generate(tmp_path, trained.config, f"evaluate.unsafe={tests}", "generate.safety_questions=12")
    assert done.code == 0, done.err
    data = tmp_path / "run/data"
    dropped = [one for one in read_dropped(data / "dropped/safety.jsonl") if one.reason == "test_prompt"]
    assert Counter(one.source for one in dropped)["unsafe"] == len(dropped) > 0
    assert {one.prompt for one in dropped} <= set(leaked)
    assert not {row.prompt for row in read_rows(data / "safety.jsonl")} & set(leaked)
    assert "repeated a test prompt" in (data / "README.md").read_text()


def test_the_folder_is_a_dataset(trained: TrainedBunch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    done = generate(tmp_path, trained.config)
    assert done.code == 0, done.err
    rows = read_rows(tmp_path / "run/data/benign.jsonl")
    for split in ("search", "selection"):
        found = datasets.load_dataset(str(tmp_path / "run/data"), "benign", split=split, cache_dir=str(tmp_path / "c"))
        assert [row["prompt"] for row in found] == [row.prompt for row in rows if row.split == split]
