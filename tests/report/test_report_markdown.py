"""The Markdown shows the page's numbers, and hostile text in it stays text."""

import re

from markdown_it import MarkdownIt

from unspoiled.evaluate import Mean, ModelScores, Rate, Results
from unspoiled.report import ReportInputs, render_markdown
from unspoiled.report._markdown_text import plain


def test_every_rate_and_mean_stands_in_the_table(inputs):
    text = render_markdown(inputs)
    for name, scores in inputs.results.models.items():
        (line,) = [r for r in text.splitlines() if r.replace("*", "").startswith(f"| {name} |") and r.count("|") == 10]
        for rate in scores.rates.values():
            assert f"{100 * rate.rate:.1f}% ({100 * rate.low:.1f}–{100 * rate.high:.1f})" in line
        for mean in scores.means.values():
            assert f"{mean.mean:.3f} ({mean.low:.3f}–{mean.high:.3f})" in line
    assert "| **evolve** |" in text
    assert "unspoiled run examples/bunch/run.yaml" in text


def test_the_audit_in_short(inputs):
    text = render_markdown(inputs)
    assert "Audit: “letters” spoils the uniform merge: without it, CE\\_safety changes by −0.95" in text
    assert "| letters | −0.95 (−1.04 to −0.86) |" in text
    assert "Audit" not in render_markdown(ReportInputs(title="t", results=inputs.results))


def test_the_glance_gives_the_cost_and_whose_spoiler_it_is(inputs):
    rows = render_markdown(inputs).splitlines()
    (cost,) = [row for row in rows if row.startswith("| Cost in colours, against its expert |")]
    assert re.match(r"\| .* \| \*\*−[\d.]+ points\*\* \(accuracy 75\.0%, 68\.6–80\.5\) \| colours, [\d.]+% \|", cost)
    assert any(row.startswith("| Which expert spoiled the uniform merge | **letters** | without it") for row in rows)
    assert any(row.startswith("| Which expert spoiled the chosen merge, “evolve” | **not resolved** |") for row in rows)


def test_means_of_tasks_are_no_losses():
    def legend(*measures):
        means = {measure: Mean.of([0.1, 0.9]) for measure in measures}
        scores = ModelScores(rates={"refusal": Rate.of([True])}, means=means)
        found = Results(models={"m": scores}, comparisons=[], provenance={})
        return render_markdown(ReportInputs(title="t", results=found)).rstrip().splitlines()[-1]

    assert legend() == "Shares of responses, with 95% Wilson intervals."
    assert legend("task:rouge") == (
        "Shares of responses, with 95% Wilson intervals; means of scores in tasks (high is wanted), with 95% bootstrap "
        "intervals."
    )
    assert "means of losses in nats per token (low is wanted) and scores in tasks (high is wanted), with" in legend(
        "task:rouge", "loss:sums"
    )


def test_a_bare_address_is_no_link():
    """GitHub makes a link of `www.` before anything; an entity in it is no part of an address, and shows the same."""
    assert plain("www.evil.example, WWW.evil.example") == "www&#46;evil.example, WWW&#46;evil.example"
    assert MarkdownIt().render(plain("www.evil.example")) == "<p>www.evil.example</p>\n"


def test_hostile_text_renders_as_text(hostile_inputs):
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(render_markdown(hostile_inputs))
    kinds = {token.type for token in tokens} | {c.type for token in tokens for c in token.children or []}
    assert not kinds & {"html_block", "html_inline", "image", "link_open", "code_inline", "s_open"}
    assert sum(token.type == "table_open" for token in tokens) == 4
    assert sum(token.type == "heading_open" for token in tokens) == 1
