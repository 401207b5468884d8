"""What models write when asked for questions is hostile text: what is readable is kept, the rest is counted."""

import json
import re
from collections import Counter

import pytest
from scripted import Scripted

from unspoiled.data import (
    Asked,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
    read_benign_examples,
    read_taxonomy,
)
from unspoiled.errors import DataError
from unspoiled.inference import Prompt

CATEGORIES = read_taxonomy("beavertails")
EXAMPLES = ["What is 2 + 2?", "What is 5 - 1?", "What is 7 + 8?", "What is 9 - 3?"]


def category_of(prompt: Prompt) -> str:
    found = re.search(r"Topic: (.*)\n", prompt.user)
    assert found is not None
    return found[1]


def unsafe(writer: Scripted, *, count: int, seed: int = 0) -> Asked:
    return ask_unsafe_questions(writer, name="q", categories=CATEGORIES, count=count, seed=seed)


def domain(writer: Scripted, *, count: int, seed: int = 0, examples: list[str] = EXAMPLES) -> Asked:
    return ask_domain_questions(
        writer, name="math", domain="arithmetic", description="sums", examples=examples, count=count, seed=seed
    )


def numbered(prompt: Prompt, i: int) -> str:
    return f'Question {i} about {category_of(prompt)}"}}'  # the reply's beginning is forced


def listed(*texts: str) -> str:
    return json.dumps(list(texts))[2:]  # after the forced beginning '["'


# --- D_safety ---------------------------------------------------------------------------------------------


def test_there_are_the_papers_14_categories() -> None:
    assert len(CATEGORIES) == 14
    assert CATEGORIES[0] == "Animal Abuse"
    assert CATEGORIES[-1] == "Violence, Aiding and Abetting, Incitement"


def test_categories_are_drawn_uniformly_and_by_the_seed() -> None:
    writer = Scripted(numbered)
    asked = unsafe(writer, count=1400)
    drawn = Counter(map(category_of, writer.asked))
    assert set(drawn) == set(CATEGORIES)
    chi_square = sum((n - 100) ** 2 / 100 for n in drawn.values())
    assert chi_square < 34.5  # 13 degrees of freedom, p = 0.001
    assert drawn[CATEGORIES[0]] != 100 or drawn[CATEGORIES[1]] != 100, "drawn each time, not dealt in turn"
    assert [q.group for q in asked.questions] == list(map(category_of, writer.asked))
    again, other = Scripted(numbered), Scripted(numbered)
    assert unsafe(again, count=1400) == asked
    unsafe(other, count=1400, seed=1)
    assert again.asked == writer.asked
    assert other.asked != writer.asked


def test_questions_are_sampled_at_the_papers_temperature_with_a_new_seed_each_round() -> None:
    writer = Scripted(lambda prompt, i: numbered(prompt, i) if i % 2 else "no JSON")
    unsafe(writer, count=8, seed=10)
    assert [temperature for _, temperature, _ in writer.calls] == [0.8] * len(writer.calls)
    assert [seed for _, _, seed in writer.calls] == [10, 11, 12, 13][: len(writer.calls)]


def test_malformed_and_repeated_replies_are_counted_and_asked_for_again() -> None:
    replies = ["no JSON at all", "cut off in the mid", '7"]', 'Same?"}', 'same?  "}', 'Other?"}', '"}', ' \\n "}']
    writer = Scripted(lambda prompt, i: replies[i] if i < len(replies) else numbered(prompt, i))
    asked = unsafe(writer, count=8)
    assert [q.text for q in asked.questions[:2]] == ["Same?", "Other?"]
    assert len(asked.questions) == asked.yields["kept"] == 8
    assert asked.yields["malformed"] == 5, "blank questions are malformed, not duplicates"
    assert asked.yields["duplicates"] == 1
    assert asked.yields["requests"] == 8 + 6


def test_fewer_come_back_where_the_questioner_repeats_itself() -> None:
    asked = unsafe(Scripted(lambda prompt, i: 'Always this?"}'), count=5)
    assert [q.text for q in asked.questions] == ["Always this?"]
    assert asked.yields == {"requests": 5 + 3 * 4, "duplicates": 16, "kept": 1}


def test_a_questioner_that_never_writes_json_stops_the_run_with_a_sample() -> None:
    with pytest.raises(DataError, match=r"'q' wrote no readable question in 12 requests.*'Sure! Here'"):
        unsafe(Scripted(lambda prompt, i: "Sure! Here"), count=3)


HOSTILE = [
    "[" * 5000,  # deeper than Python's parser goes
    '{"question": ' * 3000,
    'half a character \\ud83d"}',
    "9" * 10_000 + '"}',
    '\\u0000 nul"}',
]


@pytest.mark.parametrize("reply", HOSTILE)
def test_a_hostile_reply_breaks_nothing(reply: str) -> None:
    writer = Scripted(lambda prompt, i: reply if i == 0 else numbered(prompt, i))
    asked = unsafe(writer, count=2)
    assert len(asked.questions) == 2
    for question in asked.questions:
        assert re.fullmatch("[0-9a-f]{16}", question.id)


def test_text_around_the_json_and_escapes_inside_it_are_read() -> None:
    reply = 'Line\\none \\"quoted\\" {0} {category} – \\u00e9 \\ud83d\\ude00"}  trailing words'
    asked = unsafe(Scripted(lambda prompt, i: reply), count=1)
    assert asked.questions[0].text == 'Line\none "quoted" {0} {category} – é 😀'


# --- D_expert ---------------------------------------------------------------------------------------------


def test_each_request_shows_three_examples_drawn_by_the_seed() -> None:
    def run(seed: int) -> list[list[str]]:
        writer = Scripted(lambda prompt, i: listed(f"{i} a", f"{i} b", f"{i} c", f"{i} d"))
        domain(writer, count=40, seed=seed)
        return [json.loads(prompt.user.splitlines()[1]) for prompt in writer.asked]

    shown = run(0)
    assert len(shown) == 10
    assert all(len(set(three)) == 3 and set(three) <= set(EXAMPLES) for three in shown)
    assert len({tuple(three) for three in shown}) > 1
    assert run(0) == shown
    assert run(1) != shown


def test_examples_reach_the_model_whatever_they_hold() -> None:
    examples = ["What is {x} in {0}?", 'He said "why?"\nAnd {{then}}?', "Où est l'école? 学校", "{domain} %s \\n"]
    writer = Scripted(lambda prompt, i: listed("New?"))
    domain(writer, count=1, examples=examples)
    assert set(json.loads(writer.asked[0].user.splitlines()[1])) <= set(examples)
    assert "questions about sums" in writer.asked[0].user
    assert writer.asked[0].prefix == '["'


def test_the_in_context_examples_themselves_are_not_kept() -> None:
    writer = Scripted(lambda prompt, i: listed("what is 2 + 2? ", "What is 5 - 1?", f"What is {i} + 100?"))
    asked = domain(writer, count=2)
    assert [q.text for q in asked.questions] == ["What is 0 + 100?", "What is 1 + 100?"]
    assert asked.yields["duplicates"] == 4


def test_a_list_cut_off_at_the_token_limit_is_read_up_to_its_last_whole_item() -> None:
    asked = domain(Scripted(lambda prompt, i: 'One?", "Two, with \\" and ]?",\n\t"Thr'), count=2)
    assert [q.text for q in asked.questions] == ["One?", 'Two, with " and ]?']


def test_items_that_are_no_questions_are_left_out_of_a_list() -> None:
    asked = domain(Scripted(lambda prompt, i: 'One?", 7, null, {"q": "No"}, ["No"], " ", "Two?"] and so on'), count=2)
    assert [q.text for q in asked.questions] == ["One?", "Two?"]


def test_no_more_than_wanted_are_kept_and_each_names_its_author() -> None:
    asked = domain(Scripted(lambda prompt, i: listed("A?", "B?", "C?", "D?")), count=3)
    assert [(q.text, q.group, q.asked_by) for q in asked.questions] == [
        (t, "arithmetic", "math") for t in ("A?", "B?", "C?")
    ]


def test_two_examples_are_too_few() -> None:
    with pytest.raises(DataError, match="'arithmetic' has 2 in-context examples: give at least 3"):
        domain(Scripted(lambda prompt, i: ""), count=1, examples=EXAMPLES[:2])


def test_an_expert_that_never_writes_a_list_stops_the_run_with_a_sample() -> None:
    with pytest.raises(DataError, match=r"'math' wrote no readable question in 4 requests.*I can not"):
        domain(Scripted(lambda prompt, i: "I can not"), count=4)


# --- D_benign ---------------------------------------------------------------------------------------------


def test_harmless_questions_are_by_turns_borderline_by_category_and_everyday() -> None:
    writer = Scripted(lambda prompt, i: listed(f"{i} a?", f"{i} b?", f"{i} c?", f"{i} d?"))
    asked = ask_benign_questions(writer, name="base", categories=CATEGORIES, count=80, seed=0)
    assert len(asked.questions) == asked.yields["kept"] == 80
    assert len(writer.asked) == 20
    examples = read_benign_examples()
    for i, prompt in enumerate(writer.asked):
        shown = json.loads(prompt.user.splitlines()[1])
        kind = ("borderline", "everyday")[i % 2]
        assert len(set(shown)) == 3
        assert set(shown) <= set(examples[kind])
        groups = {q.group for q in asked.questions if q.text.startswith(f"{i} ")}
        if kind == "everyday":
            assert groups == {"everyday"}
        else:
            assert groups == {prompt.user.rpartition("Topic: ")[2]} <= set(CATEGORIES)
    again = Scripted(lambda prompt, i: listed(f"{i} a?"))
    ask_benign_questions(again, name="base", categories=CATEGORIES, count=80, seed=0)
    assert again.asked[:20] == writer.asked


def test_the_examples_of_harmless_questions_are_not_kept() -> None:
    examples = read_benign_examples()
    assert len(set(examples["borderline"]) & set(examples["everyday"])) == 0
    writer = Scripted(lambda prompt, i: listed(*examples["borderline"][:2], f"New question {i}?"))
    asked = ask_benign_questions(writer, name="base", categories=CATEGORIES, count=2, seed=0)
    assert [q.text for q in asked.questions] == ["New question 0?", "New question 1?"]
