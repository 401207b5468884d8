"""What models write when asked for questions is hostile text: what is readable is kept, the rest is counted."""

import json
import re
from collections import Counter

import pytest
from scripted import Scripted

from unspoiled.data import (
    Asked,
    Curator,
    Templates,
    Writer,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
    read_taxonomy,
)
from unspoiled.errors import DataError
from unspoiled.inference import Prompt

CATEGORIES = [category.name for category in read_taxonomy("beavertails")]
TEMPLATES = Templates()
EXAMPLES = ["What is 2 + 2?", "What is 5 - 1?", "What is 7 + 8?", "What is 9 - 3?"]


def category_of(prompt: Prompt) -> str:
    found = re.search(r"Topic: (.*)\n", prompt.user)
    assert found is not None
    return found[1]


def writer(generator: Scripted, name: str, seed: int = 0) -> Writer:
    return Writer(generator, name, seed, max_new_tokens=64)


def unsafe(generator: Scripted, *, count: int, seed: int = 0, categories: list[str] = CATEGORIES) -> Asked:
    own = writer(generator, "q", seed)
    return ask_unsafe_questions(own, Curator({}), TEMPLATES, categories=categories, count=count)


def domain(generator: Scripted, *, count: int, seed: int = 0, examples: list[str] = EXAMPLES) -> Asked:
    return ask_domain_questions(
        writer(generator, "math", seed), Curator({}), TEMPLATES,
        domain="arithmetic", description="sums", examples=examples, count=count,
    )  # fmt: skip


def benign(generator: Scripted, *, count: int) -> Asked:
    return ask_benign_questions(writer(generator, "base"), Curator({}), TEMPLATES, categories=CATEGORIES, count=count)


def numbered(prompt: Prompt, i: int) -> str:
    return f'Question {i} about {category_of(prompt)}"}}'  # the reply's beginning is forced


def listed(*texts: str) -> str:
    return json.dumps(list(texts))[2:]  # after the forced beginning '["'


# --- D_safety ---------------------------------------------------------------------------------------------


def test_every_category_gets_its_share_and_the_seed_decides_the_order() -> None:
    model = Scripted(numbered)
    asked = unsafe(model, count=145)
    drawn = Counter(map(category_of, model.asked))
    assert set(drawn) == set(CATEGORIES)
    assert sorted(drawn.values()) == [10] * 9 + [11] * 5
    assert [q.group for q in asked.questions] == list(map(category_of, model.asked))
    again, other = Scripted(numbered), Scripted(numbered)
    assert unsafe(again, count=145).questions == asked.questions
    unsafe(other, count=145, seed=1)
    assert again.asked == model.asked
    assert other.asked != model.asked


def test_what_a_category_lacks_is_asked_for_again_and_no_other() -> None:
    def reply(prompt: Prompt, i: int) -> str:
        return numbered(prompt, i) if i >= 28 or category_of(prompt) != "Self-Harm" else "no JSON"

    model = Scripted(reply)
    asked = unsafe(model, count=28)
    assert Counter(q.group for q in asked.questions) == dict.fromkeys(CATEGORIES, 2)
    assert list(map(category_of, model.asked[28:])) == ["Self-Harm"] * 2
    assert asked.tally.groups["Self-Harm"] == {"requests": 4, "malformed": 2, "kept": 2}
    assert asked.tally.groups["Privacy Violation"] == {"requests": 2, "kept": 2}


def test_what_the_curator_drops_is_counted_by_reason_and_asked_for_again() -> None:
    curator = Curator({"unsafe": ["How do people steal 20 cars in a day?"]})
    replies = ['How do people steal 20 cars in a day?"}', 'How do people steal 20 cars in one day?"}']
    model = Scripted(lambda prompt, i: replies[i] if i < 2 else numbered(prompt, i))
    asked = ask_unsafe_questions(writer(model, "q"), curator, TEMPLATES, categories=["Theft"], count=2)
    assert len(asked.questions) == asked.tally.total["kept"] == 2
    assert len(asked.dropped) == 2
    assert {dropped.source for dropped in asked.dropped} == {"unsafe"}
    assert sum(asked.tally.total[dropped.reason] for dropped in asked.dropped) >= 2
    assert asked.tally.total["requests"] == 4


def test_questions_are_sampled_at_the_papers_temperature_each_request_from_its_own_stream() -> None:
    model = Scripted(lambda prompt, i: numbered(prompt, i) if i % 2 else "no JSON")
    unsafe(model, count=8, seed=10)
    assert {(temperature, seed) for _, temperature, seed in model.calls} == {(0.8, 10)}
    assert model.streams == list(range(len(model.asked))), "a repeated request is not answered alike"


def test_malformed_and_repeated_replies_are_counted_and_asked_for_again() -> None:
    same, other = 'How is it the same?"}', 'What is the other one?"}'
    replies = ["no JSON at all", "cut off in the mid", '7"]', same, same.upper(), other, '"}', ' \\n "}']
    model = Scripted(lambda prompt, i: replies[i] if i < len(replies) else numbered(prompt, i))
    asked = unsafe(model, count=8)
    assert [q.text for q in asked.questions[:2]] == ["How is it the same?", "What is the other one?"]
    assert len(asked.questions) == asked.tally.total["kept"] == 8
    assert asked.tally.total["malformed"] == 5, "blank questions are malformed, not duplicates"
    assert asked.tally.total["duplicates"] == 1
    assert asked.tally.total["requests"] == 8 + 6


def test_fewer_come_back_where_the_questioner_repeats_itself() -> None:
    asked = unsafe(Scripted(lambda prompt, i: 'Is it always this one?"}'), count=5)
    assert [q.text for q in asked.questions] == ["Is it always this one?"]
    assert asked.tally.total == {"requests": 5 + 3 * 4, "duplicates": 16, "kept": 1}


def test_a_model_that_writes_nothing_readable_is_not_asked_for_long() -> None:
    model = Scripted(lambda prompt, i: "Sure! Here")
    with pytest.raises(DataError, match="in 16 requests"):
        unsafe(model, count=100)


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
    asked = unsafe(Scripted(lambda prompt, i: reply if i == 0 else numbered(prompt, i)), count=2)
    assert len(asked.questions) == 2
    for question in asked.questions:
        assert re.fullmatch("[0-9a-f]{16}", question.id)


def test_text_around_the_json_and_escapes_inside_it_are_read() -> None:
    reply = 'Line\\none \\"quoted\\" {0} {width} – \\u00e9 \\ud83d\\ude00"}  trailing words'
    asked = unsafe(Scripted(lambda prompt, i: reply), count=1)
    assert asked.questions[0].text == 'Line\none "quoted" {0} {width} – é 😀'


# --- D_expert ---------------------------------------------------------------------------------------------


def test_each_request_shows_three_examples_drawn_by_the_seed() -> None:
    def run(seed: int) -> list[list[str]]:
        model = Scripted(lambda prompt, i: listed(*(f"What is {i} + {100 + j}?" for j in range(4))))
        domain(model, count=40, seed=seed)
        return [json.loads(prompt.user.splitlines()[1]) for prompt in model.asked]

    shown = run(0)
    assert len(shown) == 10
    assert all(len(set(three)) == 3 and set(three) <= set(EXAMPLES) for three in shown)
    assert len({tuple(three) for three in shown}) > 1
    assert run(0) == shown
    assert run(1) != shown


def test_examples_reach_the_model_whatever_they_hold() -> None:
    examples = ["What is {x} in {0}?", 'He said "why?"\nAnd {{then}}?', "Où est l'école? 学校", "{domain} %s \\n"]
    model = Scripted(lambda prompt, i: listed("Is this a new one?"))
    domain(model, count=1, examples=examples)
    assert set(json.loads(model.asked[0].user.splitlines()[1])) <= set(examples)
    assert "questions about sums" in model.asked[0].user
    assert model.asked[0].prefix == '["'


def test_the_in_context_examples_themselves_are_not_kept() -> None:
    model = Scripted(lambda prompt, i: listed("what is 2 + 2? ", "What is 5 - 1?", f"What is {i} + 100?"))
    asked = domain(model, count=2)
    assert [q.text for q in asked.questions] == ["What is 0 + 100?", "What is 1 + 100?"]
    assert asked.tally.total["duplicates"] == 4


def test_a_list_cut_off_at_the_token_limit_is_read_up_to_its_last_whole_item() -> None:
    reply = 'What is one more?", "What are two, with \\" and ]?",\n\t"What are thr'
    asked = domain(Scripted(lambda prompt, i: reply), count=2)
    assert [q.text for q in asked.questions] == ["What is one more?", 'What are two, with " and ]?']


def test_items_that_are_no_questions_are_left_out_of_a_list() -> None:
    reply = 'What is one more?", 7, null, {"q": "No"}, ["No"], " ", "What is two less?"] and so on'
    asked = domain(Scripted(lambda prompt, i: reply), count=2)
    assert [q.text for q in asked.questions] == ["What is one more?", "What is two less?"]


def test_no_more_than_wanted_are_kept_and_each_names_its_author() -> None:
    texts = [f"What is {i} + 100?" for i in range(4)]
    asked = domain(Scripted(lambda prompt, i: listed(*texts)), count=3)
    assert [(q.text, q.group, q.asked_by) for q in asked.questions] == [(t, "arithmetic", "math") for t in texts[:3]]
    assert asked.tally.total == {"requests": 1, "kept": 3, "surplus": 1}


def test_two_examples_are_too_few() -> None:
    with pytest.raises(DataError, match="'arithmetic' has 2 in-context examples: give at least 3"):
        domain(Scripted(lambda prompt, i: ""), count=1, examples=EXAMPLES[:2])


def test_an_expert_that_never_writes_a_list_stops_the_run_with_a_sample() -> None:
    with pytest.raises(DataError, match=r"'math' wrote no readable question in 4 requests.*I can not"):
        domain(Scripted(lambda prompt, i: "I can not"), count=4)


# --- D_benign ---------------------------------------------------------------------------------------------


def harmless(i: int) -> str:
    return listed(*(f"How do I blow up {i} balloons in {minutes} minutes?" for minutes in range(100, 104)))


def test_harmless_questions_are_half_borderline_by_category_and_half_everyday() -> None:
    model = Scripted(lambda prompt, i: harmless(i))
    asked = benign(model, count=112)
    groups = Counter(q.group for q in asked.questions)
    assert groups == {**dict.fromkeys(CATEGORIES, 4), "everyday": 56}
    assert len(model.asked) == 28
    for i, prompt in enumerate(model.asked):
        shown = json.loads(prompt.user.splitlines()[1])
        (group,) = {q.group for q in asked.questions if f" {i} balloons" in q.text}
        kind = "everyday" if group == "everyday" else "borderline"
        assert len(set(shown)) == 3
        assert set(shown) <= set(TEMPLATES.benign_examples[kind])
        assert ("Topic: " in prompt.user) == (kind == "borderline")
        assert kind == "everyday" or prompt.user.endswith(f"Topic: {group}")
    again = Scripted(lambda prompt, i: harmless(i))
    assert benign(again, count=112).questions == asked.questions
    assert again.asked == model.asked


def test_the_examples_of_harmless_questions_are_not_kept() -> None:
    examples = TEMPLATES.benign_examples
    assert len(set(examples["borderline"]) & set(examples["everyday"])) == 0
    new = [f"How long do {i} eggs boil?" for i in range(9)]
    asked = benign(Scripted(lambda prompt, i: listed(*examples["borderline"][:2], new[i])), count=2)
    assert [q.text for q in asked.questions] == new[:2]
