"""The model card: what the hub reads (front matter) and what a person needs before using the merge."""

from __future__ import annotations

from collections import Counter

from unspoiled.data import DataCardInputs
from unspoiled.evaluate import Mean, Rate, Results
from unspoiled.report._card_inputs import CardInputs
from unspoiled.report._card_metadata import metadata
from unspoiled.report._hostile_text import visible
from unspoiled.report._inputs import NOT_TESTED
from unspoiled.report._markdown_text import code_block, plain, table
from unspoiled.report._wording import count, listing, means_legend, measure_name, number, rate_with_interval


def render_card(inputs: CardInputs) -> str:
    """Return the README.md of a merged checkpoint: hub front matter, measured rates, lineage, recipe, hashes, limits.

    Args:
        inputs: Everything on the card.
    """
    import yaml

    front_matter = yaml.safe_dump(metadata(inputs), sort_keys=False, allow_unicode=True, width=float("inf"))
    names = listing([plain(model.name) for model in inputs.models])
    sections = [
        f"---\n{front_matter}---",
        f"# {plain(inputs.name)}",
        f"A merge of {names}, made with unspoiled.",
        *_results(inputs),
        *([] if inputs.data is None else [_lineage(inputs.data)]),
        _limits(inputs.guard),
        "## Recipe\n\nFor mergekit or `unspoiled merge`.\n\n" + code_block(inputs.recipe_yaml, "yaml"),
        *_reproduction(inputs),
        _licenses(inputs),
        _hashes(inputs),
    ]
    return "\n\n".join(sections) + "\n"


def _results(inputs: CardInputs) -> list[str]:
    results, winner = inputs.results, inputs.winner
    if results is None or winner is None:
        return ["## Results\n\nNothing was measured on this merge. Do not assume that it refuses anything."]
    measures = results.rates
    rates = results.models[winner].rates
    sizes = listing([f"{count(rates[m])} for {plain(measure_name(m))}" for m in measures if m in rates])
    legend = (
        "Share of responses with its 95% Wilson interval. Refusal is of unsafe prompts (high is wanted); `safe` is "
        "the share of the responses to them that a guard calls safe; "
        "`advice` the share that it flags for specialised advice alone; over-refusal is of harmless ones (low is "
        "wanted); invalid responses are empty, echoed or degenerate; the other columns are accuracy. "
        f"Responses, and families of prompts where those are fewer: {sizes}. This model is **{plain(winner)}**."
    )
    sections = [f"## Results\n\n{_numbers(results, winner, measures)}\n\n{legend}"]
    if means := results.means:
        explained = means_legend(means)
        sections.append(f"{_numbers(results, winner, means)}\n\n{explained[:1].upper()}{explained[1:]}.")
    return [*sections, _guards(results, inputs.guard)]


def _numbers(results: Results, winner: str, measures: list[str]) -> str:
    rows = []
    for name, scores in results.models.items():
        found: dict[str, Rate | Mean] = {**scores.rates, **scores.means}
        cells = [_number(found[measure]) if measure in found else "–" for measure in measures]
        rows.append([f"**{plain(name)}**" if name == winner else plain(name), *cells])
    return table(["model", *(plain(measure_name(measure)) for measure in measures)], rows)


def _number(value: Rate | Mean) -> str:
    if isinstance(value, Rate):
        return rate_with_interval(value)
    return f"{number(value.mean, 3)} ({number(value.low, 3)} to {number(value.high, 3)})"


def _guards(results: Results, guard: str) -> str:
    text = f"## Guards\n\nResponses were judged by {plain(guard)}."
    chosen_by = results.provenance.get("search_guard")
    if chosen_by is None:
        return text
    text += f" The data of the search were filtered by {plain(chosen_by)}."
    if chosen_by in guard.split(" and "):
        text += " That is the same guard: what it doesn't see is neither in the data nor in the rates."
    return text


def _lineage(data: DataCardInputs) -> str:
    """Say how the data were made that the coefficients were searched on."""
    splits = list(dict.fromkeys(split for _, split in data.splits))
    sets = list(dict.fromkeys(name for name, _ in data.splits))
    counts = table(
        ["set", *map(plain, splits), "answered by"],
        [
            [f"D\\_{plain(name)}", *(str(data.splits.get((name, split), 0)) for split in splits), _shares(data, name)]
            for name in sets
        ],
        left=2 + len(splits),
    )
    models = table(
        ["role", "model", "hash"], [[plain(m.role), plain(m.name), _code(m.hash)] for m in data.models], left=3
    )
    guards = listing([plain(guard.name) for guard in data.guards]) or "nobody"
    compared = listing([plain(name) for name in data.tests])
    apart = f" What repeats a prompt of {compared} was left out." if compared else ""
    return (
        "## Data\n\nThe coefficients were searched, and the winner picked, on rows that models of the bunch wrote:\n\n"
        f"{counts}\n\nAnswers were kept by the verdicts of {guards}.{apart}\n\n{models}"
    )


def _shares(data: DataCardInputs, name: str) -> str:
    given = Counter({model: rows for key, of in data.targets.items() if key == name for model, rows in of.items()})
    return listing([f"{plain(model)} {rows}" for model, rows in given.most_common()]) or "–"


def _limits(guard: str) -> str:
    return (
        "## Limits\n\nThe numbers above are measured rates with intervals, for these prompts and this guard "
        f"({plain(guard)}). They do not say that the model is safe. Not tested: {listing([*NOT_TESTED])}. "
        "Models that look clean alone can merge into one that is not; the hashes say what went in."
    )


def _reproduction(inputs: CardInputs) -> list[str]:
    if not inputs.command:
        return []
    used = listing([f"{plain(name)} {plain(version)}" for name, version in inputs.versions.items()])
    made = f"\n\nMade with {used}." if used else ""
    return [
        "## How to reproduce\n\nWith the inputs below, by their hashes:\n\n"
        f"{code_block(inputs.command, 'sh')}{made} The same inputs and seeds give the same weights on the same kind of "
        "machine."
    ]


def _licenses(inputs: CardInputs) -> str:
    rows = [[plain(model.name), plain(model.license or "unknown")] for model in inputs.models]
    return (
        "## Licenses of the inputs\n\n"
        + table(["input", "license"], rows, left=2)
        + "\n\nAs their own cards state them. A merge is bound by all of them."
    )


def _hashes(inputs: CardInputs) -> str:
    rows = [[plain(name), _code(found)] for name, found in inputs.hashes.items()]
    return "## Inputs\n\n" + table(["input", "hash"], rows, left=2)


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', '').replace('|', '')}`"
