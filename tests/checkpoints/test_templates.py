"""Chat templates: what the built-in ones render, and which one a merged model gets."""

from pathlib import Path

import pytest

from tiny import CHATML, tiny_tokenizer
from unspoiled.checkpoints import BUILT_IN_TEMPLATES, chat_template, choose_chat_template
from unspoiled.errors import CheckpointError, ConfigError

TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye?"},
]
SYSTEM = {"role": "system", "content": "Be kind."}

RENDERED = {
    "alpaca": (
        "{system}\n\n### Instruction:\nHi\n\n### Response:\nHello.</s>\n\n### Instruction:\nBye?\n\n### Response:\n"
    ),
    "chatml": (
        "{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "exaone": (
        "[|system|]{system}[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello.[|endofturn|]\n[|user|]Bye?\n[|assistant|]"
    ),
    "llama3": (
        "<s>{system}<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s> [INST] {system}Hi [/INST] Hello.</s> [INST] Bye? [/INST]",
}
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
WITHOUT_SYSTEM = dict.fromkeys(RENDERED, "") | {"alpaca": ALPACA}
WITH_SYSTEM = {
    "alpaca": "Be kind.",
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n",
    "exaone": "Be kind.",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>",
    "mistral": "Be kind.\n\n",
}


def render(template: str, messages: list[dict[str, str]], *, reply: bool = True) -> str:
    tokenizer = tiny_tokenizer(chat_template=template)  # transformers renders in its sandbox
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply))


@pytest.mark.parametrize("name", list(BUILT_IN_TEMPLATES))
def test_each_built_in_template_renders_what_its_format_says(name: str) -> None:
    template = BUILT_IN_TEMPLATES[name]
    expected = RENDERED[name]
    assert render(template, TURNS) == expected.replace("{system}", WITHOUT_SYSTEM[name])
    assert render(template, [SYSTEM, *TURNS]) == expected.replace("{system}", WITH_SYSTEM[name])
    # without a reply to come, nothing follows the last turn, and a longer conversation begins with a shorter one
    shorter = render(template, TURNS[:2], reply=False)
    assert render(template, TURNS, reply=False).startswith(shorter)
    assert shorter.rstrip("\n").endswith(("Hello.", "</s>", "<|im_end|>", "[|endofturn|]", "<|eot_id|>"))


def test_the_built_in_names_are_those_that_mergekits_recipes_use() -> None:
    assert set(BUILT_IN_TEMPLATES) == {"alpaca", "chatml", "exaone", "llama3", "mistral"}


def test_mistral_refuses_turns_out_of_order() -> None:
    with pytest.raises(Exception, match="user and assistant in turns"):
        render(BUILT_IN_TEMPLATES["mistral"], [TURNS[0], TURNS[2]])


@pytest.fixture
def directories(tmp_path: Path) -> dict[str, Path]:
    templates = {
        "base": None,
        "one": "{{ 1 }}",
        "two": CHATML,
        "three": CHATML + "\n",
        "four": "{{ 1 }}",
        "five": "{{ 5 }}",
    }
    for name, template in templates.items():
        (tmp_path / name).mkdir()
        if template is not None:
            (tmp_path / name / "chat_template.jinja").write_text(template)
    return {name: tmp_path / name for name in templates}


@pytest.mark.parametrize(
    ("models", "donor", "expected"),
    [
        (["base", "one", "two", "three"], "base", CHATML),  # most models, outer white space aside
        (["base", "one", "two", "three", "four"], "base", "{{ 1 }}"),  # a tie: the first
        (["base", "one", "two", "three", "four"], "three", CHATML + "\n"),  # a tie: the donor's
        (["one", "two", "four"], "two", "{{ 1 }}"),  # the donor's is in the minority
        (["base"], "base", None),
    ],
)
def test_auto_takes_the_most_common(
    directories: dict[str, Path], models: list[str], donor: str, expected: str | None
) -> None:
    chosen = choose_chat_template("auto", {name: directories[name] for name in models}, directories[donor])
    assert chosen == expected


def test_other_choices(directories: dict[str, Path]) -> None:
    models = directories
    assert choose_chat_template(None, models, directories["five"]) == "{{ 5 }}"
    assert choose_chat_template(None, models, directories["base"]) is None
    assert choose_chat_template("llama3", models, directories["five"]) == BUILT_IN_TEMPLATES["llama3"]
    assert choose_chat_template("{{ messages }}", models, directories["five"]) == "{{ messages }}"
    with pytest.raises(ConfigError, match=r"'chatlm' is neither.*Did you mean 'chatml'"):
        choose_chat_template("chatlm", models, directories["five"])


def test_an_oversized_template_is_refused_unread(directories: dict[str, Path]) -> None:
    huge = "{# " + "x" * 1_000_000 + " #}"
    with pytest.raises(ConfigError, match="1,000,006 bytes"):
        choose_chat_template(huge, directories, directories["one"])
    (directories["one"] / "chat_template.jinja").write_text(huge)
    with pytest.raises(CheckpointError, match=r"one/chat_template\.jinja: the chat template has 1,000,006 bytes"):
        chat_template(directories["one"])
    (directories["two"] / "chat_template.jinja").unlink()
    (directories["two"] / "tokenizer_config.json").write_text('{"chat_template": "' + "x" * 1_000_001 + '"}')
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: the chat template has 1,000,001 bytes"):
        chat_template(directories["two"])


def test_a_template_that_is_not_text_is_refused(directories: dict[str, Path]) -> None:
    (directories["one"] / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not UTF-8"):
        chat_template(directories["one"])
