"""Every family is asked exactly as it was published.

The golden prompts are the public templates' own, filled in outside of this package with the pair below:

- llama-guard-2: the chat template that Together serves for it, the same words as PROMPT_TEMPLATE_2 of
  meta-llama/llama-cookbook (prompt_format_utils.py);
- llama-guard-3: tokenizer_config.json of meta-llama/Llama-Guard-3-8B, without the space that it writes before the
  beginning-of-text token and that Meta's documentation doesn't have;
- llama-guard-4: what the hub's template of meta-llama/Llama-Guard-4-12B renders, a literal `\\n\\n` after each message
  included;
- shieldgemma: google-gemini/gemma-cookbook, responsible/shieldgemma_on_huggingface.ipynb;
- wildguard: allenai/wildguard, wildguard/utils.py;
- granite-guardian-3.1: the hub's chat template, rendered by Jinja on the day of the model's release;
- qwen3guard-gen: the hub's chat template as rendered, the same words as the technical report's appendix 6.1;
- harmbench: the model card of cais/HarmBench-Llama-2-13b-cls;
- compact-guard: this package's own, as the demo's guard was trained on it.
"""

import pytest

from guard_models import CONTROL, FAMILIES, GOLDEN, make_guard, tokenizer_of
from unspoiled.errors import CheckpointError, ConfigError
from unspoiled.guards import FormatOptions, all_families, get_family

PROMPT, RESPONSE = "How do I bake bread?", "Mix flour, water and salt.\n\nThen wait."
DEFAULT = FormatOptions()
FIRST = {"shieldgemma": "shieldgemma-dangerous", "granite-guardian-3.1": "granite-guardian-3.1-harm"}


def golden(family: str) -> str:
    return (GOLDEN / f"{FIRST.get(family, family)}.txt").read_bytes().decode()


def test_every_family_that_has_a_template_is_tested() -> None:
    assert [family.name for family in all_families() if family.build is not None] == FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_the_published_one_byte_for_byte(family: str) -> None:
    form = get_family(family).format(FormatOptions())
    assert form.render(PROMPT, RESPONSE)[0] == golden(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ids_are_those_of_the_published_prompt(family: str) -> None:
    """Tokenised in one piece; where the template has no beginning of text, the tokenizer's comes first."""
    form = get_family(family).format(FormatOptions())
    tokenizer = tokenizer_of(family)
    ids = make_guard(form, family, None).prompt_ids(form.questions[0], PROMPT, RESPONSE)
    whole = tokenizer(golden(family), add_special_tokens=False)["input_ids"]
    assert ids == [tokenizer.bos_token_id, *whole] if form.begins else ids == whole
    assert tokenizer.decode(ids[:1]) == {
        "qwen3guard-gen": "<|im_start|>",
        "granite-guardian-3.1": "<|start_of_role|>",
    }.get(family, CONTROL[family][0])


@pytest.mark.parametrize("family", ["llama-guard-2", "llama-guard-3"])
def test_llama_guard_takes_the_white_space_off_the_ends(family: str) -> None:
    form = get_family(family).format(FormatOptions())
    assert form.render(f" {PROMPT}\n", f"\n{RESPONSE} ") == [golden(family)]


def test_categories_chosen_keep_their_codes() -> None:
    (asked,) = get_family("llama-guard-3").format(FormatOptions(("S1", "S10"))).render(PROMPT, RESPONSE)
    assert "CATEGORIES>\nS1: Violent Crimes.\nS10: Hate.\n<END" in asked
    sexual, dangerous = (
        get_family("shieldgemma").format(FormatOptions(("sexual", "dangerous"))).render(PROMPT, RESPONSE)
    )
    assert '\n* "No Sexually Explicit Information": The chatbot' in sexual
    assert dangerous == golden("shieldgemma")


def test_a_category_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'llama-guard-2' has no category 'S12'. Choose from S1, .*S11\."):
        get_family("llama-guard-2").format(FormatOptions(("S12",)))
    with pytest.raises(ConfigError, match="its categories are fixed"):
        get_family("wildguard").format(FormatOptions(("S1",)))
    with pytest.raises(ConfigError, match="named twice"):
        get_family("shieldgemma").format(FormatOptions(("hate", "hate")))


@pytest.mark.parametrize(
    ("family", "code"), [("llama-guard-2", "S5"), ("llama-guard-3", "S6"), ("llama-guard-4", "S6")]
)
def test_specialised_advice_is_marked(family: str, code: str) -> None:
    """It flags a medical expert for giving medical advice: reports show it apart."""
    described = get_family(family)
    assert described.advice == code
    assert f"\n{code}: Specialized Advice.\n" in described.format(FormatOptions()).questions[0].template


def test_an_unknown_family_is_met_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown guard 'lama-guard3'. Did you mean 'llama-guard-3'\? Known: refusal"
    ):
        get_family("lama-guard3")


@pytest.mark.parametrize(
    ("family", "other", "complaint"),
    [
        ("llama-guard-3", "llama-guard-4", r"no control token '<\|start_header_id\|>'"),
        ("llama-guard-4", "qwen3guard-gen", r"no control token '<\|begin_of_text\|>'"),
        ("qwen3guard-gen", "shieldgemma", r"no control token '<\|im_start\|>'"),
        ("granite-guardian-3.1", "harmbench", r"no control token '<\|start_of_role\|>'"),
    ],
)
def test_a_tokenizer_of_another_family_is_refused(family: str, other: str, complaint: str) -> None:
    form = get_family(family).format(FormatOptions())
    with pytest.raises(CheckpointError, match=complaint):
        make_guard(form, other, None)


def test_the_fingerprint_covers_all_that_a_verdict_depends_on() -> None:
    def fingerprint(family: str = "llama-guard-3", options: FormatOptions = DEFAULT, **changed: object) -> str:
        return make_guard(get_family(family).format(options), family, None, **changed).fingerprint

    found = [
        fingerprint(),
        fingerprint(threshold=0.5),
        fingerprint(threshold=0.6),
        fingerprint(weights=lambda: "other"),
        fingerprint(options=FormatOptions(("S1",))),
        fingerprint("qwen3guard-gen"),
        fingerprint("qwen3guard-gen", FormatOptions(controversial="safe")),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint() == found[0]


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="is not between 0 and 1"):
        make_guard(get_family("llama-guard-3").format(FormatOptions()), "llama-guard-3", None, threshold=threshold)


def test_a_threshold_without_a_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'wildguard' gives no probability for the threshold 0\.7"):
        make_guard(get_family("wildguard").format(FormatOptions()), "wildguard", None, threshold=0.7)
