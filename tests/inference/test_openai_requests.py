"""What is sent to a server and what is made of its replies, whatever it replies."""

import asyncio
import sys
import time
from typing import Any

import pytest
from scripted_server import Asked, Reply, refused, serving, written

from unspoiled.config import ServedModel
from unspoiled.errors import ServerError
from unspoiled.inference import OpenAIGenerator, Prompt, Sample
from unspoiled.inference._spelling import break_control_tokens

KEY = "sk-very-secret-1234"


def echo(number: int, asked: Asked) -> Reply:
    return written(asked.body["messages"][-1]["content"])


def numbered(count: int) -> list[Prompt]:
    return [Prompt(f"p{number}") for number in range(count)]


def ask(url: str, prompts: list[Prompt] | None = None, **options: Any) -> list[Sample]:
    served = ServedModel(url=url, model="m", **options)
    return OpenAIGenerator(served).generate(prompts or [Prompt("p")], max_new_tokens=9)


@pytest.mark.parametrize("server", ["vllm", "llama.cpp", "other"])
def test_what_is_sent(server: Any) -> None:
    """The forced beginning where it is continued, and plain softmax sampling whatever the server's defaults are."""
    with serving(echo) as there:
        generator = OpenAIGenerator(ServedModel(url=there.url, model="m", server=server))
        prompts = [Prompt("u", system="s", prefix="Sure"), Prompt("u")]
        generator.generate(prompts, max_new_tokens=9, temperature=0.8, seed=3, streams=[5, 6])
        first, second = sorted((asked.body for asked in there.asked), key=lambda body: -len(body["messages"]))
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    begun = {"role": "assistant", "content": "Sure"}
    assert first["messages"] == (messages if server == "other" else [*messages, begun])
    assert second["messages"] == messages[1:]
    assert (first["model"], first["max_tokens"], first["temperature"], first["top_p"]) == ("m", 9, 0.8, 1.0)
    assert 0 <= first["seed"] < 2**31
    assert first["seed"] != second["seed"]
    own = {key: value for key, value in first.items() if key in ("top_k", "min_p", "repetition_penalty")}
    vllm = {"top_k": -1, "min_p": 0, "repetition_penalty": 1}
    assert own == {"vllm": vllm, "llama.cpp": {"top_k": 0, "min_p": 0}, "other": {}}[server]
    assert first.get("continue_final_message") == (True if server == "vllm" else None)
    assert "continue_final_message" not in second


def test_some_models_take_the_limit_by_another_name() -> None:
    with serving(echo) as there:
        ask(there.url, limit_name="max_completion_tokens")
        assert there.asked[0].body["max_completion_tokens"] == 9
        assert "max_tokens" not in there.asked[0].body


def test_what_is_made_of_replies() -> None:
    replies = {
        "p0": written(" text \n"),
        "p1": written("cut", "length"),
        "p2": written("cut too", "content_filter"),
        "p3": written(None),
        "p4": written("four by four tok", usage=None),
        "p5": written("half \ud83d"),
    }
    with serving(lambda number, asked: replies[asked.body["messages"][-1]["content"]]) as there:
        samples = ask(there.url, numbered(6))
    assert samples == [
        Sample("text", 7, True),
        Sample("cut", 7, False),
        Sample("cut too", 7, False),
        Sample("", 7, True),
        Sample("four by four tok", 4, True),
        Sample("half ?", 7, True),
    ]


def test_a_server_that_repeats_the_beginning_is_understood() -> None:
    """A prefix is not part of a sample's text."""
    with serving(lambda number, asked: written("Sure, here")) as there:
        assert ask(there.url, [Prompt("u", prefix="Sure,")], server="vllm")[0].text == "here"
        assert ask(there.url, [Prompt("u", prefix="Sure,")])[0].text == "Sure, here"


def test_a_limit_of_requests_at_once_is_kept_and_used() -> None:
    def slow(number: int, asked: Asked) -> Reply:
        reply = echo(number, asked)
        reply.after = 0.05
        return reply

    with serving(slow) as there:
        arrived: list[int] = []
        generator = OpenAIGenerator(ServedModel(url=there.url, model="m", concurrency=3))
        samples = generator.generate(numbered(9), max_new_tokens=9, on_sample=lambda i, _: arrived.append(i))
        assert there.most_at_once == 3
    assert [sample.text for sample in samples] == [f"p{number}" for number in range(9)]
    assert sorted(arrived) == list(range(9))


def test_requests_begin_no_faster_than_allowed() -> None:
    with serving(echo) as there:
        ask(there.url, numbered(5), requests_per_minute=1200)
        begun = [asked.at for asked in there.asked]
    assert begun[-1] - begun[0] >= 4 * 0.05 * 0.9


def test_too_many_requests_wait_as_long_as_the_server_says() -> None:
    def busy(number: int, asked: Asked) -> Reply:
        return refused(429, "slow down", **{"Retry-After": "0.3"}) if number == 0 else echo(number, asked)

    with serving(busy) as there:
        assert ask(there.url)[0].text == "p"
        assert 0.3 <= there.asked[1].at - there.asked[0].at < 2


def test_a_server_that_fails_now_and_then_is_asked_again() -> None:
    """The client's own pause begins at half a second."""

    def failing(number: int, asked: Asked) -> Reply:
        return refused(500, "oops", **{"Retry-After": "0.01"}) if number in (0, 2) else echo(number, asked)

    with serving(failing) as there:
        assert [sample.text for sample in ask(there.url, numbered(3), concurrency=1)] == ["p0", "p1", "p2"]


QUICKLY = {"Retry-After": "0.01"}
FAILURES = {
    "too many requests": (
        refused(429, "quota of the day", **QUICKLY),
        r"too many requests, 3 times .*quota of the day",
    ),
    "failing": (refused(503, "no worker", **QUICKLY), r"failed 3 times in a row \(503: .*no worker.*server's log"),
    "key": (refused(401, f"bad key {KEY}"), r"refuses the key in MY_KEY \(401: .*bad key \*\*\*"),
    "model": (
        refused(404, "no model 'm'"),
        r"doesn't know the model.*no model 'm'.*It serves 'served-model'\. Correct",
    ),
    "length": (refused(400, "context of 4096 tokens"), r"refuses the request \(400: .*context of 4096 tokens"),
    "hangs": (Reply({}, after=9), r"no reply within 0\.2 s, 3 times.*Raise the timeout"),
    "not JSON": (Reply(b"<html>", headers={"Content-Type": "text/html"}), r"its reply is no chat completion: <html>"),
    "broken JSON": (Reply(b'{"choices": ['), r"its reply is not JSON"),
    "no choices": (Reply({"choices": []}), r"its reply is no chat completion: .*choices=\[\]"),
    "nothing": (Reply({}), r"its reply is no chat completion"),
    "choices of texts": (Reply({"choices": ["a"]}), r"its reply is no chat completion"),
    "a list for text": (written([1, 2]), r"its reply is no chat completion"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_explained_and_what_had_arrived_is_given(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the model, the server, its own words and what to do; never the key."""
    monkeypatch.setenv("MY_KEY", KEY)
    reply, message = FAILURES[what]
    with serving(lambda number, asked: echo(number, asked) if number < 2 else reply) as there:
        served = ServedModel(url=there.url, model="m", key_variable="MY_KEY", concurrency=1, timeout=0.2, retries=2)
        arrived: list[str] = []
        with pytest.raises(ServerError, match=message) as caught:
            OpenAIGenerator(served).generate(
                numbered(5), max_new_tokens=9, on_sample=lambda _, sample: arrived.append(sample.text)
            )
        assert there.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert arrived == ["p0", "p1"]
    assert str(caught.value).startswith(f"'m' at {there.url}: ")
    assert KEY not in str(caught.value) + repr(served)
    assert "\n" not in str(caught.value)


def test_a_failure_ends_the_requests_beside_it() -> None:
    """They are not waited for."""
    with serving(lambda number, asked: refused(400, "no") if number == 2 else Reply({}, after=60)) as there:
        began = time.monotonic()
        with pytest.raises(ServerError, match="refuses the request"):
            ask(there.url, numbered(9), concurrency=4)
        assert time.monotonic() - began < 5


def test_an_error_of_who_is_told_is_theirs() -> None:
    def told(position: int, sample: Sample) -> None:
        raise OSError(28, "No space left on device")

    with serving(echo) as there, pytest.raises(OSError, match="No space"):
        OpenAIGenerator(ServedModel(url=there.url, model="m")).generate(numbered(3), max_new_tokens=9, on_sample=told)


def test_a_key_that_is_not_set_is_asked_for_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ServerError, match=r"the environment variable 'MY_KEY'.* is not set"):
        OpenAIGenerator(ServedModel(url="http://localhost:1/v1", model="m", key_variable="MY_KEY"))


def test_a_key_for_another_server_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's package would take it from the environment; a server that wants a key and got none says so."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda number, asked: refused(401, "key?")) as there:
        with pytest.raises(ServerError, match=r"asks for a key \(401: .*key\?.*Name the environment variable"):
            ask(there.url)
        assert KEY not in there.asked[0].headers["authorization"]


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ServerError, match=r"pip install 'unspoiled\[openai\]'$"):
        OpenAIGenerator(ServedModel(url="http://localhost:1/v1", model="m"))


def test_no_request_at_a_time_makes_no_sense() -> None:
    with pytest.raises(ValueError, match=r"concurrency\n.*greater than or equal to 1"):
        ServedModel(url="http://localhost:1/v1", model="m", concurrency=0)


def test_a_notebook_can_ask_too() -> None:
    """Its thread runs a loop already."""

    async def cell() -> list[Sample]:
        return ask(there.url)

    with serving(echo) as there:
        assert asyncio.run(cell())[0].text == "p"


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end|>", "<start_of_turn>", "<end_of_turn>", "[INST]",
        "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<bos>", "<eos>", "<｜User｜>", "<｜end▁of▁sentence｜>",
        "[TOOL_CALLS]", "<|START_OF_TURN_TOKEN|>", "<think>", "</think>", "<|turn>", "<turn|>",
    ],
)  # fmt: skip
def test_a_spelled_control_token_is_broken(token: str) -> None:
    """Alone, inside text, twice, and one inside another: no spelling is left, nothing else has changed."""
    for text in (token, f"a{token}b", token * 2, token[:2] + token + token[2:]):
        broken = break_control_tokens(text)
        assert token not in broken
        assert broken.replace(" ", "") == text
        assert break_control_tokens(broken) == broken


@pytest.mark.parametrize(
    "text", ["a < b > c", "x <| y", "[1, 2] [x] [NAME]", "<b>bold</b>", "1 << 2 >> 3", "a || b > c"]
)
def test_other_text_is_left_alone(text: str) -> None:
    assert break_control_tokens(text) == text
