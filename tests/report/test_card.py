"""The model card as the hub and a Markdown reader see it."""

import dataclasses
import html
import re

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import EvalResult
from markdown_it import MarkdownIt

from unspoiled.data import DataCardInputs, GuardUsed, ModelUsed
from unspoiled.evaluate import Mean, ModelScores, Rate, Results
from unspoiled.report import CardInputs, CardModel, render_card

HOSTILE = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\'"></style></svg></title>'
    "{{ 7 * 7 }} javascript:alert(1) \u202etxt.exe\u202c \x1b[31mred \x00 \ud800 | `code` [a](http://evil.invalid)"
)
MODELS = (
    CardModel("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
    CardModel("aligned", None, "apache-2.0"),
    CardModel("org/colours", "org/colours", "apache-2.0"),
)


def rate(successes: int, n: int) -> Rate:
    return Rate.of([i < successes for i in range(n)])


def scores(refused: int, guard: str = "llama-guard") -> ModelScores:
    return ModelScores(
        rates={
            "refusal": rate(refused, 313),
            f"safe:{guard}": rate(refused, 313),
            "over_refusal": rate(7, 150),
            "invalid": rate(2, 463),
            "domain:colours": rate(120, 200),
            "task:arc": rate(30, 100),
        },
        means={"loss:colours": Mean.of([0.1 * i for i in range(40)])},
    )


def lineage(name: str = "questioner") -> DataCardInputs:
    return DataCardInputs(
        name="data",
        command="unspoiled generate run.yaml",
        versions={},
        models=(ModelUsed("writes unsafe questions", name, "00ff"), ModelUsed("aligned: answers", "aligned", "11ee")),
        guards=(GuardUsed("refusal rules 1", "22dd"),),
        sampling=(),
        templates={},
        yields={},
        group_yields={},
        splits={("safety", "search"): 70, ("safety", "selection"): 30, ("expert", "search"): 40},
        groups=(),
        targets={"safety": {"aligned": 90, "templates": 10}, "expert": {"colours": 40}},
        tests=("unsafe", "harmless"),
    )


def inputs(**changes) -> CardInputs:
    sound = CardInputs(
        name="merged",
        models=MODELS,
        recipe_yaml="merge_method: task_arithmetic\nbase_model: base\n",
        guard="refusal rules 1 and llama-guard",
        hashes={"model aligned": "sha256:00ff", "model base": "sha256:11ee"},
        results=Results(
            models={"base": scores(10), "evolve": scores(293)},
            comparisons=[],
            provenance={"guard": "refusal rules 1 and llama-guard", "search_guard": "refusal rules 1"},
        ),
        winner="evolve",
        data=lineage(),
        command="unspoiled run run.yaml",
        versions={"unspoiled": "0.1.0", "torch": "2.13.0"},
    )
    return dataclasses.replace(sound, **changes)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def as_html(text):
    return MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])


def test_front_matter_is_what_the_hub_reads():
    """A local directory is not in base_model: the hub would link it to a stranger's model of that name."""
    found = front_matter(render_card(inputs()))
    assert list(found) == [
        "base_model", "base_model_relation", "license", "library_name", "pipeline_tag", "tags", "model-index",
    ]  # fmt: skip
    assert found["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct", "org/colours"]
    assert (found["base_model_relation"], found["license"]) == ("merge", "apache-2.0")
    assert (found["library_name"], found["pipeline_tag"]) == ("transformers", "text-generation")
    local = front_matter(render_card(inputs(models=[CardModel("gpt2")], results=None, winner=None)))
    assert not {"base_model", "base_model_relation", "model-index", "license"} & set(local)


def test_the_hubs_own_parser_reads_every_number():
    card = ModelCard(render_card(inputs()), ignore_metadata_errors=False)
    data = card.data
    assert isinstance(data, ModelCardData)
    assert data.model_name == "merged"
    found: list[EvalResult] = data.eval_results
    for result in found:
        assert result.task_type == "text-generation"
    by_name = {result.metric_name.partition(",")[0]: result for result in found}
    winner = scores(293)
    assert len(found) == len(winner.rates) + len(winner.means)
    assert by_name["refusal"].metric_value == round(winner.rates["refusal"].rate, 4)
    assert by_name["refusal"].dataset_name == "unsafe test prompts"
    assert by_name["refusal"].metric_name == "refusal, 95% interval 0.9034 to 0.9583, n 313"
    assert by_name["colours"].metric_type == "accuracy"
    assert (by_name["loss (colours)"].metric_type, by_name["loss (colours)"].metric_value) == ("loss", 1.95)
    again = ModelCard(str(card))
    assert again.data.to_dict() == data.to_dict()


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["mit", "mit"], {"license": "mit"}),
        (["mit", "apache-2.0", "mit"], {"license": "other", "license_name": "apache-2.0-and-mit"}),
        (["mit", None], {}),
        ([None], {}),
        (["other: Our Own!", "other: Our Own!"], {"license": "other", "license_name": "our-own"}),
        (["llama3.1", "other: Our Own"], {"license": "other", "license_name": "llama3.1-and-our-own"}),
    ],
)
def test_a_license_is_stated_if_all_inputs_state_one(licenses, expected):
    text = render_card(inputs(models=[CardModel(f"m{i}", None, of) for i, of in enumerate(licenses)]))
    found = front_matter(text)
    assert {key: found[key] for key in ("license", "license_name") if key in found} == expected
    assert "<td>unknown</td>" in as_html(text) or None not in licenses


def test_the_card_has_rates_means_guards_lineage_recipe_hashes_and_limits():
    page = as_html(render_card(inputs()))
    for heading in ("Results", "Guards", "Data", "Limits", "Recipe", "How to reproduce", "Licenses of the inputs"):
        assert f"<h2>{heading}</h2>" in page
    assert "93.6% (90.3–95.8)" in page
    assert "1.950 (1.5" in page
    assert "<strong>evolve</strong>" in page
    assert "filtered by refusal rules 1. That is the same guard" in page
    for number in ("70", "30", "40"):
        assert f">{number}</td>" in page
    assert "aligned 90 and templates 10" in page
    assert "<td>writes unsafe questions</td>" in page
    assert "merge_method: task_arithmetic" in page
    assert "unspoiled run run.yaml" in page
    assert "sha256:00ff" in page
    assert "They do not say that the model is safe. Not tested: prompts unlike" in page


def test_samples_of_one_prompt_are_not_counted_as_prompts():
    thirty = Rate.of([True, False] * 15, [f"p{i // 3}" for i in range(30)])
    found = Results(models={"m": ModelScores(rates={"refusal": thirty})}, comparisons=[], provenance={})
    card = render_card(inputs(results=found, winner="m"))
    assert "Responses, and families of prompts where those are fewer: 30 in 10 families for refusal." in card
    assert "n 30 in 10 families" in card
    assert "test prompts with" not in card


def test_a_tasks_mean_score_is_no_loss():
    means = {"task:rouge": Mean.of([0.1, 0.9])}
    found = Results(models={"m": ModelScores(rates={}, means=means)}, comparisons=[], provenance={})
    card = render_card(inputs(results=found, winner="m"))
    assert "Means of scores in tasks (high is wanted), with 95% bootstrap intervals." in card
    assert "nats" not in card


def test_another_guard_is_not_called_the_same():
    results = inputs().results.model_copy(update={"provenance": {"search_guard": "refusal rules"}})
    text = render_card(inputs(results=results))
    assert "filtered by refusal rules." in text
    assert "the same guard" not in text


def test_a_card_without_results_says_so():
    text = render_card(inputs(results=None, winner=None, data=None))
    assert "Nothing was measured on this merge" in text
    assert "%" not in text.split("## Recipe")[0]
    assert "## Data" not in text
    with pytest.raises(ValueError, match="no scores for model 'nobody'"):
        inputs(winner="nobody")
    with pytest.raises(ValueError, match="needs the models"):
        inputs(models=[])


def test_hostile_text_stays_text():
    guard = HOSTILE.replace(":", "")
    results = Results(
        models={HOSTILE: scores(10, guard), "b": scores(3, guard)},
        comparisons=[],
        provenance={"search_guard": HOSTILE},
    )
    text = render_card(
        inputs(
            name=HOSTILE,
            models=[CardModel(HOSTILE, HOSTILE, HOSTILE), CardModel("x", "---\ntags: [x]", HOSTILE)],
            recipe_yaml=f"```\n{HOSTILE}\n````",
            guard=HOSTILE,
            hashes={HOSTILE: HOSTILE},
            results=results,
            winner=HOSTILE,
            data=lineage(HOSTILE),
            command=HOSTILE,
            versions={HOSTILE: HOSTILE},
        )
    )
    assert front_matter(text)["tags"] == ["merge", "mergekit", "unspoiled"]
    page = as_html(text)
    assert not re.search(r"<(script|img|a|style)\b", page)
    assert "<script>window.hacked" in html.unescape(page)
    assert "\u202e" not in text
    ModelCard(text)
