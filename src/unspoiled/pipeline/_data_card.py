"""What stands beside the rows of a run: Parquet files, and the card that says how everything was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import transformers

from unspoiled import __version__
from unspoiled.data import (
    TEMPERATURE,
    DataCardInputs,
    Dropped,
    GuardUsed,
    ModelUsed,
    Row,
    SamplingUsed,
    Tally,
    balance_of,
    count_contamination,
    count_targets,
    group_lengths,
    language_of,
    read_dropped,
    render_data_card,
    write_dataset,
)
from unspoiled.files import hash_value, write_atomic
from unspoiled.pipeline._askers import public_name
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._data_sets import LONGEST_REPLY, data_sets, dropped_files
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._guards import public_guard_name


def write_data_card(bunch: Bunch, run: RunDirectory, rows: Sequence[Row], tallies: Mapping[str, Tally]) -> None:
    """Write `data/parquet/` and `data/README.md`.

    Args:
        bunch: The models, guards and test sets.
        run: The run directory, whose data sets are whole.
        rows: The rows of all sets.
        tallies: What became of the questions, by data set.
    """
    folder = run.path / "data"

    def write() -> None:
        card = render_data_card(data_card_inputs(bunch, run, rows, tallies))
        write_dataset(folder, rows)
        write_atomic(folder / "README.md", card)

    made_of = [run.digest(f"dataset:{name}") for name in data_sets(bunch)]
    run.step("data", made_of, [folder / "parquet", folder / "README.md"], write)


def data_card_inputs(
    bunch: Bunch, run: RunDirectory, rows: Sequence[Row], tallies: Mapping[str, Tally]
) -> DataCardInputs:
    """Return how a run's data were made; see `write_data_card`."""
    files = [path for name in data_sets(bunch) for path in dropped_files(run.path / "data", name)]
    dropped: list[Dropped] = [one for path in files for one in read_dropped(path)]
    categories = [category.name for category in bunch.categories]
    warnings = balance_of([row.group for row in rows if row.set == "safety"], categories).warnings
    domains = list(bunch.config.domain_experts)
    warnings += balance_of([row.group for row in rows if row.set == "expert"], domains).warnings
    return DataCardInputs(
        name=f"Generated data of {run.path.name}",
        command="unspoiled generate run.yaml",
        versions={"unspoiled": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        models=tuple(_models(bunch)),
        guards=(GuardUsed(public_guard_name(bunch.data_guard), bunch.data_guard.fingerprint),),
        sampling=tuple(_sampling(bunch)),
        templates={"texts of requests": bunch.templates.fingerprint, "taxonomy": hash_value(categories)},
        yields={title: tally.total for title, tally in tallies.items()},
        group_yields={title: tally.groups for title, tally in tallies.items()},
        splits=Counter((row.set, row.split) for row in rows),
        groups=group_lengths(rows),
        targets=count_targets(rows),
        tests=tuple(bunch.test_prompts),
        contamination=count_contamination(dropped),
        languages=Counter(language_of(row.prompt) for row in rows),
        warnings=warnings,
    )


def _models(bunch: Bunch) -> list[ModelUsed]:
    askers = {"writes unsafe questions": bunch.questioner, "writes harmless questions": bunch.benign_questioner}
    used = [ModelUsed(role, public_name(asker.model), asker.fingerprint()) for role, asker in askers.items()]
    domains = {expert: domain for domain, expert in bunch.config.domain_experts.items()}
    for name, source in bunch.experts.items():
        role = f"answers; writes questions of {domains[name]}" if name in domains else "answers"
        used.append(ModelUsed(f"{name}: {role}", public_name(source), source.fingerprint()))
    return [*used, ModelUsed("base: answers harmless questions", public_name(bunch.base), bunch.base.fingerprint())]


def _sampling(bunch: Bunch) -> list[SamplingUsed]:
    config = bunch.config.generate
    asked = [SamplingUsed(f"questions of D_{k}", TEMPERATURE, n, config.seed) for k, n in LONGEST_REPLY.items()]
    answers = SamplingUsed("answers", 0.0, config.max_new_tokens, config.seed)
    if (how := config.consistency) is None:
        return [*asked, answers]
    again = f"answers of experts again, {how.samples} times"
    return [*asked, answers, SamplingUsed(again, how.temperature, config.max_new_tokens, config.seed)]
