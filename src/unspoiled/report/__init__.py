"""What a run found, for people: one HTML page, a table for the terminal, a model card."""

from unspoiled.report._audit_terminal import audit_findings, audit_tables
from unspoiled.report._card import render_card
from unspoiled.report._card_inputs import CardInputs, CardModel
from unspoiled.report._compared_runs import ComparedRun, render_runs
from unspoiled.report._confidence_terminal import comparisons_table, optimism_table
from unspoiled.report._figures import write_figures
from unspoiled.report._inputs import (
    NOT_TESTED,
    TRIGGERS,
    CoefficientTable,
    FinalistRow,
    ReportInputs,
    ResponseRow,
    SearchRow,
    TrialPoint,
)
from unspoiled.report._markdown import render_markdown
from unspoiled.report._page import render_report, write_report
from unspoiled.report._plain_table import plain_table
from unspoiled.report._responses import side_by_side_rows
from unspoiled.report._terminal import results_table, search_table, yields_table

__all__ = [
    "NOT_TESTED",
    "TRIGGERS",
    "CardInputs",
    "CardModel",
    "CoefficientTable",
    "ComparedRun",
    "FinalistRow",
    "ReportInputs",
    "ResponseRow",
    "SearchRow",
    "TrialPoint",
    "audit_findings",
    "audit_tables",
    "comparisons_table",
    "optimism_table",
    "plain_table",
    "render_card",
    "render_markdown",
    "render_report",
    "render_runs",
    "results_table",
    "search_table",
    "side_by_side_rows",
    "write_figures",
    "write_report",
    "yields_table",
]
