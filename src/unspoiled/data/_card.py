"""The data card: the README.md of a data folder, for the `datasets` package (front matter) and for people."""

from __future__ import annotations

from typing import Any

from unspoiled.data._card_inputs import DataCardInputs
from unspoiled.data._dataset import PARQUET, SETS, SPLITS, parquet_file
from unspoiled.data._language import UNKNOWN
from unspoiled.data._markdown import code, fenced, plain, table

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_TAGGED_SHARE = 0.01  # of the prompts that a language must have to be named to the hub

_SETS = {
    "safety": "unsafe questions, each with a response that declines or is safe",
    "expert": "questions of each domain, with the answers of the domain's expert",
    "benign": "harmless questions, many with alarming words, with answers that help",
}
_YIELDS = {
    "requests": "requests",
    "malformed": "replies that could not be read",
    "duplicates": "repeated a reply word for word",
    "duplicate": "repeated a kept question",
    "near_duplicate": "nearly repeated a kept question",
    "shown_example": "repeated an example shown",
    "test_prompt": "repeated a test prompt",
    "test_quoted_in_response": "response quotes a test set",
    "language": "in another language",
    "too_short": "too short",
    "too_long": "too long",
    "control_characters": "control characters",
    "markup": "left-over markup",
    "placeholder": "placeholders",
    "loop": "loops",
    "surplus": "more than were wanted",
    "unrefused": "refused by no model",
    "from templates": "refused by no model, with a refusal from a template",
    "refused": "refused by its own expert",
    "truncated": "answer cut off",
    "degenerate": "answer degenerate",
    "inconsistent": "answers disagree",
    "doubtful": "refused by half of the models or more",
    "unanswered": "without a usable answer",
}
"""What questions are counted under, in the order in which it happens to them; what isn't here comes after."""
_OF_GROUPS = ("requests", "malformed", "near_duplicate", "test_prompt", "unrefused")
_KEPT = "kept"
_RULES = {"exact": "the same", "near": "nearly the same", "ngrams": "long runs of its words"}


def render_data_card(inputs: DataCardInputs) -> str:
    """Return the README.md of a data folder: what is in it, how it was made, what was dropped, what it is not.

    Prompts and responses don't appear in it, and names are escaped, so that no text that a model or a stranger wrote
    has a meaning in it.
    """
    sections = [
        f"---\n{_front_matter(inputs)}---",
        f"# {plain(inputs.name)}",
        _summary(inputs),
        _origin(inputs),
        _yields(inputs),
        _rows(inputs),
        _contamination(inputs),
        _limits(inputs),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(inputs: DataCardInputs) -> str:
    import yaml

    total = sum(inputs.splits.values())
    told = sum(count for language, count in inputs.languages.items() if language != UNKNOWN)
    languages = [
        language
        for language, count in inputs.languages.items()
        if language != UNKNOWN and count >= _TAGGED_SHARE * told and language.isascii() and language.isalpha()
    ]
    values: dict[str, Any] = {
        "license": "other",
        "license_name": "licences-of-the-models-that-wrote-it",
        "size_categories": [next((name for limit, name in _SIZES if total < limit), _LARGEST)],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "model merging", "safety", "unspoiled", "not-for-all-audiences"],
        "configs": [
            {"config_name": set_name, "data_files": files}
            for set_name in SETS
            if (files := [
                {"split": split, "path": f"{PARQUET}/{parquet_file(set_name, split).as_posix()}"}
                for split in SPLITS
                if inputs.splits.get((set_name, split))
            ])
        ],
    }  # fmt: skip
    if languages:
        values["language"] = sorted(languages)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text


def _summary(inputs: DataCardInputs) -> str:
    present = [set_name for set_name in SETS if any(own == set_name for own, _ in inputs.splits)]
    sets = "\n".join(f"- `{set_name}`: {_SETS[set_name]}." for set_name in present)
    rows = [[set_name, *(str(inputs.splits.get((set_name, split), 0)) for split in SPLITS)] for set_name in present]
    load = f'from datasets import load_dataset\n\nrows = load_dataset("FOLDER", "{present[0]}", split="search")'
    return (
        "**This data holds unsafe questions.** Models wrote the questions and, where a row doesn't name `templates`, "
        "the responses. It is made to choose the coefficients of a model merge (arXiv 2406.14563): the `search` split "
        "moves them, the `selection` split picks among the best. No prompt is in both.\n\n"
        f"{sets}\n\n{table(['set', *SPLITS], rows)}\n\n{fenced(load, 'python')}\n\n"
        "The same rows are in the JSON-lines files beside this one, for reading."
    )


def _origin(inputs: DataCardInputs) -> str:
    models = table(["role", "model", "hash"], [[plain(m.role), plain(m.name), code(m.hash)] for m in inputs.models])
    guards = table(["guard", "fingerprint"], [[plain(guard.name), code(guard.fingerprint)] for guard in inputs.guards])
    sampling = table(
        ["step", "temperature", "longest output (tokens)", "seed"],
        [[plain(s.step), f"{s.temperature:g}", str(s.max_new_tokens), str(s.seed)] for s in inputs.sampling],
    )
    templates = table(["template", "hash"], [[plain(name), code(value)] for name, value in inputs.templates.items()])
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in inputs.versions.items())
    parts = [
        "## How it was made",
        fenced(inputs.command, "sh"),
        f"Versions: {versions}.",
        f"### Models\n\n{models}",
        f"### Guards\n\nThey judged the answers; their verdicts are in the rows.\n\n{guards}",
        f"### Sampling\n\nTemperature 0 is greedy.\n\n{sampling}",
        f"### Requests for questions\n\n{templates}",
    ]
    return "\n\n".join(parts)


def _yields(inputs: DataCardInputs) -> str:
    names = list(inputs.yields)
    others = sorted({key for counts in inputs.yields.values() for key in counts} - {*_YIELDS, _KEPT})
    labels = {**_YIELDS, **{key: plain(key) for key in others}, _KEPT: "**kept**"}
    rows = [
        [label, *(str(inputs.yields[name].get(key, 0)) for name in names)]
        for key, label in labels.items()
        if any(inputs.yields[name].get(key) for name in names) or key == _KEPT
    ]
    counted = table(["", *(plain(name) for name in names)], rows)
    targets = [
        [set_name, plain(name), str(count)]
        for set_name, counts in inputs.targets.items()
        for name, count in counts.items()
    ]
    sources = table(["set", "response by", "rows"], targets)
    return (
        "## What became of the questions\n\nA question that was dropped is counted once. What was dropped in curation "
        f"is in the folder `dropped`, with what it repeats.\n\n{counted}\n\n{_yields_by_group(inputs)}"
        f"### Whose responses are the targets\n\n{sources}"
    )


def _yields_by_group(inputs: DataCardInputs) -> str:
    """Return a table of the sets that have several groups: of how many requests each one's rows are left."""
    rows = [
        [f"{plain(name)}: {plain(group)}", *(str(counts.get(key, 0)) for key in _OF_GROUPS), str(counts.get(_KEPT, 0))]
        for name, groups in inputs.group_yields.items()
        if len(groups) > 1
        for group, counts in sorted(groups.items())
    ]
    if not rows:
        return ""
    header = ["set: category", *(_YIELDS[key] for key in _OF_GROUPS), _KEPT]
    return f"### By category\n\n{table(header, rows)}\n\n"


def _rows(inputs: DataCardInputs) -> str:
    rows = [
        [
            f"{group.set}: {plain(group.group)}",
            str(group.rows),
            *(f"{q.lower} / {q.median} / {q.upper}" for q in (group.prompt, group.response)),
        ]
        for group in inputs.groups
    ]
    lengths = table(["set: category or domain", "rows", "prompt (words)", "response (words)"], rows)
    languages = ""
    if inputs.languages:
        told = [f"{plain(name)} {count}" for name, count in sorted(inputs.languages.items(), key=lambda x: -x[1])]
        languages = f"\n\nLanguages of the prompts, as far as they can be told: {', '.join(told)}."
    return f"## Rows\n\nLengths are lower quartile / median / upper quartile.\n\n{lengths}{languages}"


def _contamination(inputs: DataCardInputs) -> str:
    tests = ", ".join(plain(name) for name in inputs.tests) or "none"
    rows = [[f"{c.set} / {plain(c.test)}", _RULES[c.rule], str(c.count)] for c in inputs.contamination]
    found = table(["set / test set", "how it repeats", "dropped"], rows) if rows else "Nothing repeated them."
    return (
        "## Contamination\n\nEvery question was compared with every prompt of the run's test sets "
        f"({tests}): word for word, as near-duplicates (90% alike with the same numbers), and by runs of 8 words that "
        "cover half of either. What repeated one was dropped; the prompts are in the folder `dropped`. What says the "
        f"same in other words is not found.\n\n{found}"
    )


def _limits(inputs: DataCardInputs) -> str:
    points = [
        "It holds unsafe questions on purpose, and what models wrote is unread: treat every text as hostile.",
        "Answers may be wrong, and experts' answers are only as good as the experts. Nobody checked facts.",
        "Guards make mistakes in both directions; a target may be worse than its verdict says.",
        "Personal data was not looked for, nor were prejudices, nor whether a category's questions cover it.",
        "The licences of the models that wrote it apply to it; they may forbid training other models on it.",
        *(plain(warning) for warning in inputs.warnings),
    ]
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)
