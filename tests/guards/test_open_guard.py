"""Guards by name around real tiny models on disk."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from guard_models import guard_that_says, make_guard, save_guard, tokenizer_of
from tiny import Bunch, tiny_adapter
from unspoiled.checkpoints import ModelRef
from unspoiled.config import ServedModel
from unspoiled.errors import CheckpointError, ConfigError
from unspoiled.guards import FormatOptions, ModelGuard, PolicyGuard, RefusalRules, get_family, open_guard
from unspoiled.guards._policy import read_policy
from unspoiled.inference import ChatTemplate, Sample, TransformersBackend

SERVED = ServedModel(url="http://one/v1", model="judge")
PAIRS = [
    ("How do I bake bread?", "Mix flour, water and salt, then wait."),
    ("Name a colour.", "Blue is a colour that many people like."),
    ("Tell me <end_of_turn> more", "<|end_of_text|> No."),
]


@pytest.mark.parametrize("family", ["shieldgemma", "granite-guardian-3.1"])
def test_probabilities_are_those_of_a_bare_forward_pass(family: str, tmp_path: Path) -> None:
    save_guard(family, tmp_path / "guard")
    guard = open_guard(family, str(tmp_path / "guard"), dtype="float32")
    verdicts = guard.judge(PAIRS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "guard").eval()
    form = get_family(family).format(FormatOptions())
    asker = make_guard(form, family, None)
    for pair, verdict in zip(PAIRS, verdicts, strict=True):
        wanted = []
        for question in form.questions:
            with torch.inference_mode():
                logits = model(torch.tensor([asker.prompt_ids(question, *pair)])).logits[0, -1]
            yes, no = (torch.softmax(logits, dim=0)[list(spellings)].sum() for spellings in asker._words)
            wanted.append((yes / (yes + no)).item())
        assert verdict.p_unsafe == pytest.approx(max(wanted), abs=1e-5)
        assert verdict.label == ("unsafe" if verdict.p_unsafe >= 0.5 else "safe")
        assert verdict.parse_ok


def test_llama_guards_probability_is_that_of_its_first_word(tmp_path: Path) -> None:
    directory = save_guard("llama-guard-3", tmp_path / "guard")
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = tokenizer_of("llama-guard-3")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    form = replace(get_family("llama-guard-3").format(FormatOptions()), most_tokens=1)
    guard = make_guard(form, "llama-guard-3", TransformersBackend(model, ChatTemplate(tokenizer)), threshold=0.5)
    spellings = guard._words[0]
    for pair, verdict in zip(PAIRS, guard.judge(PAIRS), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([guard.prompt_ids(form.questions[0], *pair)])).logits[0, -1]
        wanted = torch.log_softmax(logits, dim=0)[list(spellings)].exp().sum().item()
        assert verdict.p_unsafe == pytest.approx(wanted, abs=1e-5)
        assert verdict.label == ("unsafe" if wanted >= 0.5 else "safe")
        assert verdict.guard == "llama-guard-3"


def test_weights_are_loaded_at_the_first_judgement_and_everything_else_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    from unspoiled.guards import _open

    real = _open._load
    monkeypatch.setattr(_open, "_load", lambda *args, **options: loaded.append("once") or real(*args, **options))
    directory = save_guard("shieldgemma", tmp_path / "guard")
    guard = open_guard("shieldgemma", "guard", relative_to=tmp_path, dtype="float32", threshold=0.25)
    assert guard.name == "shieldgemma:guard"
    assert loaded == []
    with pytest.raises(CheckpointError, match="no control token"):
        open_guard("qwen3guard-gen", str(directory))
    guard.judge(PAIRS)
    guard.judge(PAIRS)
    assert loaded == ["once"]
    other = open_guard("shieldgemma", "guard", relative_to=tmp_path, threshold=0.75)
    assert guard.fingerprint != other.fingerprint


def test_an_adapter_is_read_on_top_of_its_base(tmp_path: Path) -> None:
    base = save_guard("shieldgemma", tmp_path / "base")
    adapter = tiny_adapter(base, tmp_path / "adapter", seed=1)
    verdicts = {}
    for model in (f"{base}", f"{base}+{adapter}"):
        guard = open_guard("shieldgemma", model, dtype="float32")
        verdicts[model] = [verdict.p_unsafe for verdict in guard.judge(PAIRS)]
    plain, adapted = verdicts.values()
    assert max(abs((a or 0) - (b or 0)) for a, b in zip(plain, adapted, strict=True)) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [
        (("lama-guard-3",), {}, "Did you mean 'llama-guard-3'"),
        (("refusal-rules", "org/model"), {}, "has no model"),
        (("refusal-rules",), {"threshold": 0.5}, "no probability for the threshold"),
        (("refusal-rules",), {"categories": ["S1"]}, "has no category 'S1'"),
        (("policy",), {}, "needs a model that follows instructions"),
        (("llama-guard-3",), {"policy": Path("mine.txt")}, "has no policy"),
        (("llama-guard-3",), {"controversial": "safe"}, "has no controversial level"),
        (("qwen3guard-gen",), {"controversial": "perhaps"}, "it is 'unsafe' or 'safe'"),
        (("llama-guard-3", SERVED), {}, "needs a model of its own: one behind a server"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(
    arguments: tuple[object, ...], options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_guard(*arguments, **options)  # type: ignore[arg-type]


def test_the_rules_need_no_model() -> None:
    assert isinstance(open_guard("refusal-rules"), RefusalRules)


def test_a_guard_is_known_by_what_it_judges_by_and_not_by_where_it_lies(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere" / "judge"
    shutil.copytree(bunch.base, copy)
    absolute, relative = open_guard("policy", str(copy)), open_guard("policy", "judge", relative_to=copy.parent)
    assert absolute.name == relative.name == "policy:judge"
    first = absolute.fingerprint
    assert first == relative.fingerprint == open_guard("policy", str(bunch.base)).fingerprint
    (copy / "special_tokens_map.json").write_text("{}")
    assert open_guard("policy", str(copy)).fingerprint != first
    served = [ServedModel(url=f"http://{host}/v1", model="judge") for host in ("one", "two")]
    assert len({open_guard("policy", model).fingerprint for model in served}) == 2
    monkeypatch.setattr(RefusalRules, "fingerprint", "refusal-rules-next")
    assert open_guard("policy", str(bunch.base)).fingerprint != first  # whether a response declines is theirs to say


@pytest.mark.parametrize(
    ("model", "public"),
    [
        ("org/guard@v1", "org/guard"),
        ("org/base+/home/ann/judge", "judge"),
        ("models/base+adapters/judge", "adapters/judge"),
        ("/home/ann/judge", "judge"),
    ],
)
def test_a_guard_is_named_without_a_path_of_this_machine(model: str, public: str) -> None:
    assert ModelRef.parse(model).public_name == public


def test_the_policy_judge_takes_a_generator_or_a_model(bunch: Bunch, tmp_path: Path) -> None:
    class Fixed:
        def generate(self, prompts, *, on_sample, **options):  # type: ignore[no-untyped-def]
            found = [Sample('{"verdict": "unsafe", "categories": ["crime"], "refusal": false}', 9, True)] * len(prompts)
            for position, sample in enumerate(found):
                on_sample(position, sample)
            return found

    (tmp_path / "mine.txt").write_text("Everything about bread is unsafe.")
    guard = PolicyGuard(Fixed(), name="policy:gpt", weights=lambda: "gpt", policy=read_policy(tmp_path / "mine.txt"))
    seen: list[tuple[int, int]] = []
    found = guard.judge([PAIRS[0], PAIRS[1], PAIRS[0]], progress=lambda done, total: seen.append((done, total)))
    assert [(one.label, one.categories, one.guard) for one in found] == [("unsafe", ("crime",), "policy:gpt")] * 3
    assert seen == [(1, 2), (2, 2)]
    assert guard.fingerprint != PolicyGuard(Fixed(), name="policy:gpt", weights=lambda: "gpt").fingerprint
    real = open_guard("policy", str(bunch.base), dtype="float32")
    assert isinstance(real, PolicyGuard)
    assert real.fingerprint


def test_an_empty_or_missing_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ConfigError, match="the policy is empty"):
        PolicyGuard(None, name="policy:x", weights=str, policy=" \n")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"none\.txt: the policy can't be read"):
        open_guard("policy", str(tmp_path), policy=tmp_path / "none.txt")


def long_pair(words: int) -> tuple[str, str]:
    return "Bake bread?", f"BEGINNING {'flour and water ' * words} ENDING"


def test_what_does_not_fit_is_cut_in_the_middle_and_counted() -> None:
    guard = guard_that_says("llama-guard-3", "safe")
    form = get_family("llama-guard-3").format(FormatOptions())
    question = form.questions[0]
    limit = 4096 - form.most_tokens
    assert len(guard.prompt_ids(question, *long_pair(4000))) > limit
    guard.judge([PAIRS[0], long_pair(4000), long_pair(4000)])
    assert guard.cut == 1, "equal pairs are one"
    asked = max(guard._completer.asked, key=len)  # type: ignore[attr-defined]
    assert limit - 40 <= len(asked) <= limit
    text = tokenizer_of("llama-guard-3").decode(asked)
    whole = form.render("Bake bread?", "@")[0]
    before, after = whole.split("@")
    assert text.startswith(f"{before}BEGINNING flour"), "the template and the prompt are whole"
    assert text.endswith(f" ENDING{after}")
    assert "characters left out ...]" in text


def test_both_are_cut_where_both_are_long() -> None:
    guard = guard_that_says("shieldgemma", "No", p=(0.1,))
    prompt = f"{'sugar and salt ' * 3000}PROMPT END"
    guard.judge([(prompt, long_pair(3000)[1])])
    for ids in guard._completer.asked:  # type: ignore[attr-defined]
        text = tokenizer_of("shieldgemma").decode(ids)
        assert text.count("characters left out ...]") == 2
        assert "PROMPT END\n" in text
        assert "ENDING\n" in text
        assert len(ids) <= 4096 - 1
    assert guard.cut == 1


def test_a_context_without_room_is_refused() -> None:
    form = get_family("llama-guard-3").format(FormatOptions())
    with pytest.raises(CheckpointError, match="a context of 300 tokens has no room beside the template's"):
        make_guard(form, "llama-guard-3", None, context=300)


def test_probabilities_are_finite_numbers_between_zero_and_one(tmp_path: Path) -> None:
    guard = open_guard("granite-guardian-3.1", str(save_guard("granite-guardian-3.1", tmp_path / "guard", seed=7)))
    assert isinstance(guard, ModelGuard)
    for verdict in guard.judge([*PAIRS, (PAIRS[0][0], ""), ("", "\n")]):
        assert verdict.p_unsafe is not None
        assert math.isfinite(verdict.p_unsafe)
        assert 0.0 <= verdict.p_unsafe <= 1.0
