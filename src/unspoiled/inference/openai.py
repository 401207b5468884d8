"""Generation by a model on a server that speaks OpenAI's chat completions: vLLM, llama.cpp, or a provider's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from unspoiled.config import ServedModel
from unspoiled.errors import ServerError
from unspoiled.inference._protocols import OnSample, Prompt, Sample, ignored
from unspoiled.inference._sampling import stream_seed
from unspoiled.inference._spelling import break_control_tokens

_PLAIN_SAMPLING: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},  # else the model's generation_config.json decides
    "llama.cpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},  # else its own defaults cut the tail off
    "other": {},
}
_CONTINUES: dict[str, dict[str, Any]] = {
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "llama.cpp": {},  # continues a trailing message of the assistant by itself
}
_SEEDS = 2**31  # servers differ in the integers they take; all take these
_SHOWN = 300  # characters of a server's own words
_CHARACTERS_PER_TOKEN = 4  # roughly, in English


class OpenAIGenerator:
    """A `Generator` that asks a server.

    Control tokens that are spelled out in prompts are broken (`break_control_tokens`). Greedy is temperature 0. A
    sample's seed is a function of (seed, stream); whether the server writes the same again is up to it.

    The key is read from the environment at every call, and neither kept nor shown.

    Args:
        served: The model.

    Raises:
        ServerError: The `openai` package is not installed, or the key's variable is not set.
    """

    def __init__(self, served: ServedModel) -> None:
        try:
            import openai
        except ImportError as error:
            raise ServerError(
                f"{served.model!r} at {served.url}: a model on a server needs the openai package, which is not "
                "installed: pip install 'unspoiled[openai]'"
            ) from error
        self._openai = openai
        self._served = served
        _key(served)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_sample: OnSample = ignored,
    ) -> list[Sample]:
        """Return one sample per prompt, in order; see `Generator.generate`.

        Where the server doesn't count a reply's tokens, they are estimated from its length.

        Raises:
            ServerError: The server can't be reached, refuses, or kept failing. What had arrived was given to
                `on_sample`; requests under way are dropped.
        """
        numbers = range(len(prompts)) if streams is None else streams
        requests = [
            self._request(prompt, max_new_tokens, temperature, stream_seed(seed, number) % _SEEDS)
            for prompt, number in zip(prompts, numbers, strict=True)
        ]
        samples: dict[int, Sample] = {}

        def arrived(position: int, sample: Sample) -> None:
            samples[position] = sample
            on_sample(position, sample)

        _run(self._ask_all(requests, arrived))
        return [samples[position] for position in range(len(prompts))]

    def _request(self, prompt: Prompt, max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        """Return the arguments of one chat completion."""
        messages = [{"role": "user", "content": break_control_tokens(prompt.user)}]
        if prompt.system is not None:
            messages.insert(0, {"role": "system", "content": break_control_tokens(prompt.system)})
        own = dict(_PLAIN_SAMPLING[self._served.server])
        if prompt.prefix and self._served.server in _CONTINUES:
            messages.append({"role": "assistant", "content": break_control_tokens(prompt.prefix)})
            own |= _CONTINUES[self._served.server]
        return {
            "model": self._served.model,
            "messages": messages,
            "temperature": temperature,
            "top_p": 1.0,
            "seed": seed,
            self._served.limit_name: max_new_tokens,
            "extra_body": own or None,
        }

    async def _ask_all(self, requests: Sequence[dict[str, Any]], arrived: OnSample) -> None:
        waiting = iter(range(len(requests)))
        turns = _Turns(self._served.requests_per_minute)
        async with self._client() as client:

            async def work() -> None:
                for position in waiting:
                    await turns.next()
                    arrived(position, await self._ask(client, requests[position]))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._served.concurrency, len(requests))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:  # one ended all others
                raise errors.exceptions[0] from None

    def _client(self) -> Any:
        return self._openai.AsyncOpenAI(
            base_url=self._served.url,
            api_key=_key(self._served) or "none",  # never the variable that the package would look for
            max_retries=self._served.retries,
            timeout=self._served.timeout,
        )

    async def _ask(self, client: Any, request: dict[str, Any]) -> Sample:
        try:
            reply = await client.chat.completions.create(**request)
        except self._openai.OpenAIError as error:
            raise await self._explained(client, error) from None
        except ValueError as error:
            raise self._error(f"its reply is not JSON ({self._quoted(error)}). Check that the URL is right") from None
        last = request["messages"][-1]
        return self._read(reply, last["content"] if last["role"] == "assistant" else "")

    def _read(self, reply: Any, begun: str) -> Sample:
        """Return the sample of a reply, without what it was to begin with where the server repeats that."""
        choices: Any = getattr(reply, "choices", None) or [None]
        message = getattr(choices[0], "message", None)
        text = getattr(message, "content", None) or ""
        if message is None or not isinstance(text, str):
            raise self._error(f"its reply is no chat completion: {self._quoted(reply)}. Check that the URL is right")
        text = text.encode("utf-8", "replace").decode()  # JSON can hold half a character
        text = text.removeprefix(begun).strip()
        tokens = getattr(getattr(reply, "usage", None), "completion_tokens", None)
        if not isinstance(tokens, int):
            tokens = -(-len(text) // _CHARACTERS_PER_TOKEN)
        return Sample(text, tokens, choices[0].finish_reason == "stop")

    async def _explained(self, client: Any, error: Exception) -> ServerError:
        """Return what went wrong in words of ours: what the server said, and what to do."""
        served, openai = self._served, self._openai
        status = getattr(error, "status_code", None)
        said = f"{status}: {self._quoted(error)}"
        times = f"{served.retries + 1} times in a row"
        if isinstance(error, openai.APITimeoutError):
            return self._error(
                f"no reply within {served.timeout:g} s, {times}. Raise the timeout, or ask for less at once"
            )
        if isinstance(error, openai.APIConnectionError):
            why = self._quoted(error.__cause__ or error)
            return self._error(f"can't be reached ({why}). Start the server, or correct the URL")
        if status in (401, 403) and served.key_variable:
            return self._error(
                f"refuses the key in {served.key_variable} ({said}). Set it to a key that is valid there"
            )
        if status in (401, 403):
            return self._error(f"asks for a key ({said}). Name the environment variable that holds one")
        if status == 404:
            names = await self._names(client)
            return self._error(f"doesn't know the model, or the address ({said}). {names}Correct the name, or the URL")
        if status == 429:
            advice = f"Lower the concurrency, {served.concurrency}, or the requests per minute, or wait for a new quota"
            return self._error(f"too many requests, {times} ({said}). {advice}")
        if status is not None and status >= 500:
            return self._error(f"failed {times} ({said}). See the server's log, and run the same command again")
        return self._error(f"refuses the request ({said}). Change what is asked for, or the server's settings")

    async def _names(self, client: Any) -> str:
        try:
            page = await client.with_options(max_retries=0, timeout=5).models.list()
            names = [str(model.id) for model in page.data]
        except (self._openai.OpenAIError, ValueError, AttributeError, TypeError):
            return ""
        return f"It serves {', '.join(map(repr, names[:20]))}. " if names else ""

    def _error(self, what: str) -> ServerError:
        return ServerError(f"{self._served.model!r} at {self._served.url}: {what}.")

    def _quoted(self, said: object) -> str:
        """Return a server's words on one line, cut short, without the key, which some repeat."""
        text = " ".join(str(said).split())
        if key := os.environ.get(self._served.key_variable or "", "").strip():
            text = text.replace(key, "***")
        return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."


class _Turns:
    """Lets requests begin no faster than so many a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._pause = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def next(self) -> None:
        now = time.monotonic()
        own = max(now, self._next)
        self._next = own + self._pause
        await asyncio.sleep(own - now)


def _key(served: ServedModel) -> str | None:
    if served.key_variable is None:
        return None
    key = os.environ.get(served.key_variable, "").strip()
    if not key:
        raise ServerError(
            f"{served.model!r} at {served.url}: the environment variable {served.key_variable!r}, which is to hold its "
            "API key, is not set. Set it, or name another one."
        )
    return key


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, in a notebook too, whose thread runs a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, work).result()
