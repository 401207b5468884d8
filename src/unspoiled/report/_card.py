"""The model card: what the hub reads (front matter) and what a person needs before using the merge."""

from collections.abc import Mapping

from unspoiled.evaluate import Results
from unspoiled.report._hostile_text import visible
from unspoiled.report._inputs import NOT_TESTED
from unspoiled.report._wording import interval, listing, measure_name, percent


def render_card(
    *,
    name: str,
    base_model: list[str],
    results: Results | None,
    winner: str | None,
    recipe_yaml: str,
    guard: str,
    hashes: Mapping[str, str],
) -> str:
    """Return the README.md of a merged checkpoint: hub front matter, measured rates, recipe, hashes, limits.

    Args:
        name: the merged model's name.
        base_model: the base and the experts, as hub ids or as the user wrote them.
        results: what was measured, or None when nothing was.
        winner: the name in `results` of the model that this card is about.
        recipe_yaml: the recipe in mergekit's YAML.
        guard: what judged the responses.
        hashes: the content hash of every input, by its name.

    Raises:
        ValueError: when there are results and the winner is not among them.
    """
    import yaml

    if results is not None and winner not in results.models:
        raise ValueError(f"no scores for model {winner!r}; there are {', '.join(map(repr, results.models))}")
    front_matter = yaml.safe_dump(
        {
            "base_model": [" ".join(visible(model).split()) for model in base_model],
            "base_model_relation": "merge",
            "library_name": "transformers",
            "tags": ["merge", "mergekit", "unspoiled"],
        },
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )
    measured = _NOT_MEASURED if results is None or winner is None else _measured(results, winner, guard)
    sections = [
        f"---\n{front_matter}---",
        f"# {_plain(name)}",
        f"A merge of {listing([_plain(model) for model in base_model])}, made with unspoiled.",
        measured,
        "## Recipe\n\nFor mergekit or `unspoiled merge`.\n\n" + _fenced(recipe_yaml, "yaml"),
        "## Inputs\n\n" + _table(["input", "hash"], [[_plain(key), _code(hashes[key])] for key in hashes]),
        _limits(guard),
    ]
    return "\n\n".join(sections) + "\n"


_NOT_MEASURED = "## Results\n\nNothing was measured on this merge. Do not assume that it refuses anything."


def _measured(results: Results, winner: str, guard: str) -> str:
    measures = results.rates
    rows = []
    for name, scores in results.models.items():
        rates = scores.rates
        cells = [f"{percent(rates[m].rate)} ({interval(rates[m])})" if m in rates else "–" for m in measures]
        rows.append([f"**{_plain(name)}**" if name == winner else _plain(name), *cells])
    counts = results.models[winner].rates
    sizes = listing([f"{counts[m].n} for {_plain(measure_name(m))}" for m in measures if m in counts])
    legend = (
        "Share of test prompts with its 95% Wilson interval. Refusal is of unsafe prompts (high is wanted); `safe` is "
        "the share of the responses to them that a guard calls safe; "
        "over-refusal of harmless ones (low is wanted); invalid responses are empty, echoed or degenerate; "
        f"the other columns are accuracy. Test prompts: {sizes}. This model is **{_plain(winner)}**. "
        f"Judged by {_plain(guard)}."
    )
    table = _table(["model", *(_plain(measure_name(m)) for m in measures)], rows)
    return f"## Results\n\n{table}\n\n{legend}"


def _limits(guard: str) -> str:
    return (
        "## Limits\n\nThe numbers above are measured rates with intervals, for these prompts and this guard "
        f"({_plain(guard)}). They do not say that the model is safe. Not tested: {listing([*NOT_TESTED])}. "
        "Models that look clean alone can merge into one that is not; the hashes say what went in."
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: every character with a meaning is escaped."""
    shown = []
    for char in " ".join(visible(text).split()):
        if char in "<>&@:$":
            shown.append(f"&#{ord(char)};")
        else:
            shown.append(f"\\{char}" if char in "\\`*_{}[]()#+!|~" else char)
    return "".join(shown)


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', '').replace('|', '')}`"


def _fenced(text: str, language: str) -> str:
    """Return a code block whose fence is longer than any run of backticks in the text."""
    shown = visible(text).rstrip("\n")
    fence = "```"
    while fence in shown:
        fence += "`"
    return f"{fence}{language}\n{shown}\n{fence}"
