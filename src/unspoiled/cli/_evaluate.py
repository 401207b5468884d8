"""`unspoiled evaluate`: any models, on any test sets, by any guards."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unspoiled.cli._stages import QUIET, print_table, shown

if TYPE_CHECKING:
    from unspoiled.config import EvaluationConfig, GuardConfig

Value = TypeVar("Value")
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
    from unspoiled.pipeline import evaluation_like, known_guards

    named = _distinct("models", map(_named_model, models), "name one of them as NAME=MODEL")
    domains = _distinct("domains", map(_named_file, options["domains"]), "give one --domain another name")
    paths = {f"--{name.replace('_', '-')} ": options[name] for name in ("unsafe", "harmless", "tasks_folder")}
    _require_there(paths | {f"--domain {name}=": path for name, path in domains.items()})
    config = None if run is None else read_run_config(run)
    like = None if config is None else evaluation_like(config, named, out)
    given: dict[str, Any] = {} if like is None else {name: getattr(like, name) for name in type(like).model_fields}
    given |= {"models": named, "output": out}
    simple = ["unsafe", "harmless", "tasks", "tasks_folder", "base", "template"]
    simple += ["limit", "max_new_tokens", "temperature", "seeds", "gibberish"]
    given |= {name: options[name] for name in simple if options[name] not in (None, ())}
    if domains:
        given["domains"] = domains
    if options["guards"]:
        known = {} if config is None else known_guards(config)
        given["guards"] = _distinct(
            "guards",
            (_guard(text, known) for text in options["guards"]),
            "leave one --guard out, or give both names of their own under `guards` of a --config",
        )
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


def _named_model(text: str) -> tuple[str, str]:
    """Return a model with its name: a given one, or what its last part is called."""
    name, equals, model = text.partition("=")
    if equals and not Path(text).exists() and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return name, model
    last = re.split(r"[+/]", text.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", last).lstrip("-._") or "model", text


def _distinct(what: str, named: Iterable[tuple[str, Value]], remedy: str) -> dict[str, Value]:
    """Return named values by name.

    Raises:
        ConfigError: Two have one name, so that the second would take the first one's place.
    """
    from unspoiled.errors import ConfigError

    found: dict[str, Value] = {}
    for name, value in named:
        if name in found:
            raise ConfigError(f"two {what} are called {name!r}: {remedy}.")
        found[name] = value
    return found


def _named_file(text: str) -> tuple[str, Path]:
    """Return a domain's name and file.

    Raises:
        ConfigError: One of them is missing.
    """
    from unspoiled.errors import ConfigError

    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"--domain {text!r}: write it as NAME=FILE.")
    return name, Path(path)


def _require_there(paths: Mapping[str, Path | None]) -> None:
    """Check that the paths on the command line are there; of a config's the pipeline says what is wrong.

    Args:
        paths: By what stands before each on the command line; None where it wasn't given.

    Raises:
        ConfigError: Some aren't.
    """
    from unspoiled.errors import ConfigError

    absent = [f"{before}{path}" for before, path in paths.items() if path is not None and not path.exists()]
    if absent:
        raise ConfigError("\n".join(f"{given}: there is no such path. Correct it." for given in absent))


def _guard(text: str, known: Mapping[str, GuardConfig | None]) -> tuple[str, GuardConfig | dict[str, Any] | None]:
    """Return a guard's name and config: one of a run's, the rules, or a family with its model.

    Raises:
        ConfigError: It is none of them.
    """
    from unspoiled.config import REFUSAL_RULES
    from unspoiled.errors import ConfigError

    if text in known:
        return text, known[text]
    family, equals, model = text.partition("=")
    if not family or (equals and not model):
        raise ConfigError(f"--guard {text!r}: write it as NAME or NAME=MODEL.")
    if family != REFUSAL_RULES:
        return family, {"family": family, "model": model or None}
    if equals:
        raise ConfigError(f"--guard {text!r}: the rules need no model: write {REFUSAL_RULES!r} alone.")
    return family, None
