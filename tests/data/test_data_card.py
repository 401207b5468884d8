"""The data card as the hub, the `datasets` package and a Markdown reader see it."""

import html
import math
import re
from dataclasses import fields
from typing import Any, get_args

import pytest
import yaml
from card import card_inputs
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rows import ODD_ROWS, row

from unspoiled.data import (
    Contamination,
    Dropped,
    GuardUsed,
    ModelUsed,
    Quartiles,
    Reason,
    SamplingUsed,
    balance_of,
    count_contamination,
    count_targets,
    group_lengths,
    render_data_card,
)
from unspoiled.data._card import _YIELDS


def front_matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def as_html(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])


def cells(text: str) -> list[list[str]]:
    """Return the rows of all tables as a reader sees them."""
    found = re.findall(r"<tr>(.*?)</tr>", as_html(text), re.DOTALL)
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", line)]
        for line in found
    ]


def test_a_set_of_several_categories_has_its_yields_by_category() -> None:
    text = render_data_card(card_inputs())
    rows = [row for row in cells(text) if row[0] in {"safety: Theft", "safety: Fraud", "sums: sums"} and len(row) == 7]
    assert rows == [["safety: Fraud", "4", "0", "0", "0", "0", "1"], ["safety: Theft", "6", "2", "0", "0", "0", "1"]]


def test_front_matter_is_what_the_hub_and_datasets_read() -> None:
    assert front_matter(render_data_card(card_inputs())) == {
        "license": "other",
        "license_name": "licences-of-the-models-that-wrote-it",
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "model merging", "safety", "unspoiled", "not-for-all-audiences"],
        "configs": [
            {
                "config_name": "safety",
                "data_files": [{"split": "search", "path": "parquet/safety/search.parquet"}],
            },
            {
                "config_name": "expert",
                "data_files": [
                    {"split": "search", "path": "parquet/expert/search.parquet"},
                    {"split": "selection", "path": "parquet/expert/selection.parquet"},
                ],
            },
        ],
        "language": ["de", "en"],
    }


@pytest.mark.parametrize(
    ("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (2_000_000, "1M<n<10M")]
)
def test_the_size_is_one_of_the_hubs(rows: int, size: str) -> None:
    assert front_matter(render_data_card(card_inputs(splits={("safety", "search"): rows})))["size_categories"] == [size]


def test_a_rare_guess_is_no_language_of_the_data_and_none_is_made_up() -> None:
    rare = render_data_card(card_inputs(languages={"en": 999, "ht": 1, "unknown": 500}))
    assert front_matter(rare)["language"] == ["en"]
    assert "language" not in front_matter(render_data_card(card_inputs(languages={})))


def test_the_tables_say_what_was_used_and_what_became_of_the_questions() -> None:
    table = cells(render_data_card(card_inputs()))
    for line in [
        ["set", "search", "selection"],
        ["safety", "2", "0"],
        ["writes unsafe questions", "models/base+adapters/questioner", "00ff"],
        ["rules 3", "11ee"],
        ["unsafe questions", "0.8", "64", "7"],
        ["safety_question", "22dd"],
        ["", "safety", "sums"],
        ["requests", "10", "3"],
        ["replies that could not be read", "2", "0"],
        ["repeated a test prompt", "1", "0"],
        ["odd | key", "0", "4"],
        ["kept", "2", "2"],
        ["safety", "aligned", "2"],
        ["expert: sums", "2", "5 / 5 / 5", "1 / 1 / 1"],
        ["safety / unsafe", "nearly the same", "1"],
    ]:
        assert line in table
    assert not any(line[0] == "loops" for line in table), "what happened to no question has no line"


def test_every_reason_to_drop_a_question_has_words_of_its_own() -> None:
    assert set(get_args(Reason)) <= set(_YIELDS)
    assert len(set(_YIELDS.values())) == len(_YIELDS)


def test_a_run_in_which_nothing_leaked_says_so() -> None:
    assert "Nothing repeated them." in render_data_card(card_inputs(contamination=()))


def test_no_prompt_and_no_response_is_in_the_card() -> None:
    text = render_data_card(card_inputs())
    for one in ODD_ROWS:
        assert one.prompt not in text
        assert len(one.response) < 3 or one.response not in text


HOSTILE = "<script>alert(1)</script> [x](javascript:1) | a | ![p](http://x) **b** `c` # h @you $x$ \x1b[31m \u202e"


def test_hostile_names_are_shown_and_mean_nothing() -> None:
    text = render_data_card(
        card_inputs(
            name=HOSTILE,
            command=f"unspoiled ```\n# no heading {HOSTILE}",
            versions={HOSTILE: HOSTILE},
            models=(ModelUsed(HOSTILE, HOSTILE, HOSTILE),),
            guards=(GuardUsed(HOSTILE, HOSTILE),),
            sampling=(SamplingUsed(HOSTILE, 0.0, 1, 0),),
            templates={HOSTILE: HOSTILE},
            yields={HOSTILE: {HOSTILE: 1, "kept": 1}},
            group_yields={HOSTILE: {HOSTILE: {"kept": 1}, "Theft": {HOSTILE: 1}}},
            groups=group_lengths([row("What is rain?", group=HOSTILE)]),
            targets=count_targets([row("What is rain?", answered_by=HOSTILE)]),
            tests=(HOSTILE,),
            contamination=(Contamination("safety", HOSTILE, "ngrams", 1),),
            languages={HOSTILE: 1},
            warnings=(HOSTILE,),
        )
    )
    shown = as_html(text)
    assert "<script" not in shown
    assert "<a " not in shown
    assert "<img" not in shown
    assert "no heading" not in "".join(re.findall("<h[1-6]>(.*?)</h[1-6]>", shown, re.DOTALL))
    assert not re.search("[\x1b\u202e]", text)
    widths = [{len(line.strip("|").split("|")) for line in block.splitlines()} for block in tables(text)]
    assert widths
    assert all(len(width) == 1 for width in widths), "no name adds a cell"
    seen = HOSTILE.replace("\x1b", "⟨U+001B⟩").replace("\u202e", "⟨U+202E⟩")
    assert [seen, "1"] in cells(text)


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)


@given(name=st.text())
def test_whatever_a_name_is_the_rest_of_the_card_stays(name: str) -> None:
    hostile = render_data_card(card_inputs(models=(ModelUsed(name, name, name),), tests=(name,)))
    assert cells(hostile)[-1] == ["safety / unsafe", "nearly the same", "1"]
    assert front_matter(hostile) == front_matter(render_data_card(card_inputs()))


def test_the_card_depends_on_its_inputs_alone() -> None:
    assert render_data_card(card_inputs()) == render_data_card(card_inputs())
    for field in fields(card_inputs()):
        value = getattr(card_inputs(), field.name)
        if not value:
            raise AssertionError(f"{field.name} is empty in the test's inputs, so that nothing shows it is used")


def test_a_card_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one set and split with rows"):
        card_inputs(splits={("safety", "search"): 0})


# --- what goes into it ------------------------------------------------------------------------------------


def test_contamination_is_counted_by_set_test_set_and_rule() -> None:
    def dropped(reason: str, rule: str | None = None, source: str | None = None) -> Dropped:
        return Dropped("1", "?", "Theft", "safety", reason, rule, "of", source)  # type: ignore[arg-type]

    counted = count_contamination(
        [
            dropped("test_prompt", "near", "unsafe"),
            dropped("near_duplicate", "near", "safety"),
            dropped("test_prompt", "exact", "unsafe"),
            dropped("test_quoted_in_response", "ngrams", "sums"),
            dropped("placeholder"),
            dropped("test_prompt", "near", "unsafe"),
        ]
    )
    assert counted == (
        Contamination("safety", "sums", "ngrams", 1),
        Contamination("safety", "unsafe", "exact", 1),
        Contamination("safety", "unsafe", "near", 2),
    )


def test_targets_are_counted_by_who_wrote_them() -> None:
    rows = [row("a?"), row("b?", answered_by="templates"), row("c?", answered_by="templates")]
    assert list(count_targets(rows)["safety"].items()) == [("templates", 2), ("aligned", 1)]


def test_lengths_are_quartiles_in_words() -> None:
    rows = [row("word " * n, "yes " * (10 * n)) for n in range(1, 6)] + [row("only one", "no", "benign", "everyday")]
    everyday, theft = group_lengths(rows)
    assert (theft.rows, theft.prompt, theft.response) == (5, Quartiles(2, 3, 4), Quartiles(20, 30, 40))
    assert (everyday.group, everyday.prompt, everyday.response) == ("everyday", Quartiles(2, 2, 2), Quartiles(1, 1, 1))


def test_a_category_with_less_than_half_of_its_share_is_named() -> None:
    even = balance_of(["a"] * 5 + ["b"] * 5 + ["c"] * 5, ["a", "b", "c"])
    assert (even.ratio, even.warnings) == (1.0, ())
    uneven = balance_of(["a"] * 6 + ["b"] * 2 + ["c"], ["a", "b", "c"])
    assert uneven.counts == {"a": 6, "b": 2, "c": 1}
    assert uneven.ratio == 6.0
    assert uneven.warnings == ("'c' has 1 of 9 rows, less than half of an even share (3.0).",)
    missing = balance_of(["a"], ["a", "b"])
    assert missing.ratio == math.inf
    assert missing.warnings == ("'b' has 0 of 1 rows, less than half of an even share (0.5).",)
    assert balance_of([]).warnings == ()
