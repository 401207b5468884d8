"""The model card as the hub and a Markdown reader see it."""

import html
import re

import pytest
import yaml
from markdown_it import MarkdownIt

from unspoiled.report import render_card

HASHES = {"aligned": "sha256:00ff", "base": "sha256:11ee"}


def card(inputs, **changes):
    arguments = {
        "name": "merged",
        "base_model": ["HuggingFaceTB/SmolLM2-135M-Instruct", "aligned"],
        "results": inputs.results,
        "winner": inputs.winner,
        "recipe_yaml": inputs.recipe_yaml,
        "guard": "refusal rules 1",
        "hashes": HASHES,
    }
    return render_card(**{**arguments, **changes})


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def as_html(text):
    return MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])


def test_front_matter_is_what_the_hub_reads(inputs):
    assert front_matter(card(inputs)) == {
        "base_model": ["HuggingFaceTB/SmolLM2-135M-Instruct", "aligned"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "mergekit", "unspoiled"],
    }


def test_the_card_has_rates_with_intervals_recipe_hashes_and_limits(inputs):
    page = as_html(card(inputs))
    assert page.count("<tr>") == 1 + len(inputs.results.models) + 1 + len(HASHES)
    assert "93.6% (90.3–95.8)" in page
    assert "<strong>evolve</strong>" in page
    assert "merge_method: task_arithmetic" in page
    assert "sha256:00ff" in page
    assert "They do not say that the model is safe. Not tested: prompts unlike" in page


def test_a_card_without_results_says_so(inputs):
    text = card(inputs, results=None, winner=None)
    assert "Nothing was measured on this merge" in text
    assert "%" not in text.split("## Recipe")[0]
    with pytest.raises(ValueError, match="no scores for model 'nobody'"):
        card(inputs, winner="nobody")


def test_hostile_text_stays_text(inputs, hostile_inputs):
    hostile = hostile_inputs.title
    text = card(
        hostile_inputs,
        name=hostile,
        base_model=[hostile, "---\ntags: [x]"],
        recipe_yaml=f"```\n{hostile}\n````",
        guard=hostile,
        hashes={hostile: hostile},
    )
    assert front_matter(text)["tags"] == ["merge", "mergekit", "unspoiled"]
    page = as_html(text)
    assert not re.search(r"<(script|img|a|style)\b", page)
    assert page.count("<tr>") == 1 + len(inputs.results.models) + 1 + 1
    assert "<script>window.hacked" in html.unescape(page)
    assert "\u202e" not in text
