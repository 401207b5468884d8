"""`unspoiled audit`: which expert, and which layers, spoil the merges of a run."""

from __future__ import annotations

from pathlib import Path

import click

from unspoiled.cli._stages import CONFIG, FRESH, QUIET, SET, print_findings, print_table, run_until, shown


@click.command()
@CONFIG
@SET
@FRESH
@QUIET
def audit(config: Path, overrides: tuple[str, ...], fresh: bool, quiet: bool) -> None:
    """Print which expert, and which layers, spoil the merges (does first what is missing)."""
    from unspoiled.config import read_run_config
    from unspoiled.errors import ConfigError
    from unspoiled.report import audit_tables

    if not read_run_config(config, overrides=overrides).audit.enabled:
        raise ConfigError(f"{config}: audit.enabled is false, so that there is nothing to print. Remove that line.")
    outcome = run_until(config, overrides, "audit", fresh, quiet)
    assert outcome.audit is not None
    for table in audit_tables(outcome.audit):
        print_table(table)
        click.echo()
    print_findings(outcome.audit)
    click.echo(f"Audit: {shown(outcome.directory / 'audit' / 'audit.json')}")
