"""`unspoiled evaluate`: any models, on any test sets, by any guards."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unspoiled.cli._stages import QUIET, print_table, shown

if TYPE_CHECKING:
    from unspoiled.config import EvaluationConfig

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--config", type=_FILE, help="A run's config, whose test sets, guards, base and settings are used.")
@click.option("--unsafe", type=_FILE, help="Unsafe prompts, JSONL.")
@click.option("--harmless", type=_FILE, help="Harmless prompts, JSONL.")
@click.option("--domain", "domains", multiple=True, metavar="NAME=FILE", help="Rows with answers; may be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="TASK[/METRIC]", help="A task of lm-evaluation-harness.")
@click.option("--tasks-folder", type=_FOLDER, help="A folder with task files of your own.")
@click.option(
    "--guard", "guards", multiple=True, metavar="NAME[=MODEL]", help="refusal-rules, a family, or one of --config's."
)
@click.option("--base", metavar="MODEL", help="Under which gibberish is unlikely.")
@click.option("--gibberish", type=click.FloatRange(min=0, min_open=True), help="Nats per token that are. Default: 6.")
@click.option("--template", metavar="MODEL", help="Whose chat template models without one use.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows of every set.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest response. Default: 128.")
@click.option("--temperature", type=click.FloatRange(min=0), help="Of sampled responses. Default: greedy.")
@click.option("--seeds", type=click.IntRange(min=1), help="Samples of each prompt. Default: 1.")
@click.option("--against", multiple=True, metavar="NAME", help="Compare with this model alone; may be repeated.")
@click.option("--device", help="cpu, cuda, cuda:N. Default: auto.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Default: auto.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Default: what fits in memory.")
@click.option("--out", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Where all is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of tables.")
@QUIET
def evaluate(
    models: tuple[str, ...], config: Path | None, against: tuple[str, ...], out: Path, as_json: bool, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Measure MODELs, each a PATH, HUB/ID[@REVISION] or BASE+ADAPTER, or NAME=MODEL.

    What a model answered is kept in --out and not asked again: a second guard or
    metric costs no generation. What an option says goes before --config.
    """
    from unspoiled.cli._console import ConsoleWatcher
    from unspoiled.pipeline import evaluate_models
    from unspoiled.report import comparisons_table, results_table

    wanted = _config(models, config, out, options)
    watcher = ConsoleWatcher(quiet=quiet)
    try:
        found = evaluate_models(wanted, against=against, command=_command(), watcher=watcher)
    finally:
        watcher.close()
    if as_json:
        click.echo(found.results.to_json(), nl=False)
        return
    print_table(results_table(found.results, None))
    if found.results.comparisons:
        click.echo()
        print_table(comparisons_table(found.results.comparisons))
    click.echo(f"Results: {shown(found.directory / 'results.json')}")
    click.echo(f"Report: {shown(found.directory / 'report.html')}")


def _command() -> str:
    """Return what was typed, for the report."""
    return shlex.join(["unspoiled", *sys.argv[1:]])


def _config(models: tuple[str, ...], run: Path | None, out: Path, options: dict[str, Any]) -> EvaluationConfig:
    """Return what the command line asks for.

    Raises:
        ConfigError: It asks for what isn't there, or for nothing.
    """
    from pydantic import ValidationError

    from unspoiled.config import EvaluationConfig, read_run_config
    from unspoiled.errors import ConfigError
    from unspoiled.pipeline import evaluation_like

    named = _named_models(models)
    like = None if run is None else evaluation_like(read_run_config(run), named, out)
    given: dict[str, Any] = {} if like is None else {name: getattr(like, name) for name in type(like).model_fields}
    given |= {"models": named, "output": out}
    simple = ["unsafe", "harmless", "tasks", "tasks_folder", "base", "template"]
    simple += ["limit", "max_new_tokens", "temperature", "seeds", "gibberish"]
    given |= {name: options[name] for name in simple if options[name] not in (None, ())}
    if options["domains"]:
        given["domains"] = dict(_pair(text, "--domain", "NAME=FILE") for text in options["domains"])
        given["domains"] = {name: Path(path) for name, path in given["domains"].items()}
    if options["guards"]:
        known = {} if like is None else like.guards
        given["guards"] = dict(_guard(text, known) for text in options["guards"])
    machine = {name: options[name] for name in ("device", "dtype", "batch_size") if options[name] is not None}
    if machine:
        before = {} if like is None else like.runtime.model_dump()
        given["runtime"] = {**before, **machine}
    try:
        return EvaluationConfig(**given)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'evaluate'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None


def _named_models(models: tuple[str, ...]) -> dict[str, str]:
    """Return the models by name: a given one, or what their last part is called.

    Raises:
        ConfigError: Two have one name.
    """
    from unspoiled.errors import ConfigError

    named: dict[str, str] = {}
    for text in models:
        name, equals, model = text.partition("=")
        if not equals or Path(text).exists() or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            model = text
            last = re.split(r"[+/]", text.rstrip("/"))[-1]
            name = re.sub(r"[^A-Za-z0-9_.-]", "-", last).lstrip("-._") or "model"
        if name in named:
            raise ConfigError(f"two models are called {name!r}: name one of them as NAME={model}.")
        named[name] = model
    return named


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    from unspoiled.errors import ConfigError

    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"{option} {text!r}: write it as {form}.")
    return name, value


def _guard(text: str, known: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return a guard's name and config: one of a run's, the rules, or a family with its model."""
    from unspoiled.config import REFUSAL_RULES

    if text in known:
        return text, known[text]
    if text == REFUSAL_RULES:
        return text, None
    family, equals, model = text.partition("=")
    return family, {"family": family, "model": model if equals else None}
