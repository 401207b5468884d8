"""The stages of a run, each cached by the hash of what went in: the Python API of the tool.

```python
from pathlib import Path
from unspoiled.config import read_run_config
from unspoiled.pipeline import run

outcome = run(read_run_config(Path("run.yaml")))
print(outcome.results.models[outcome.winner].rates["refusal"])
```
"""

from unspoiled.pipeline._audit import AUDIT_FILE, audit
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._compared_runs import read_runs
from unspoiled.pipeline._config_only import check_config
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._evaluate import evaluate, write_merged
from unspoiled.pipeline._evaluation import Evaluation, evaluate_models, evaluation_like, known_guards
from unspoiled.pipeline._generate import generate, tallies
from unspoiled.pipeline._opening import open_bunch
from unspoiled.pipeline._progress import Unwatched, Watcher
from unspoiled.pipeline._push import Push, look_at_hub, plan_push, push
from unspoiled.pipeline._report import report, report_inputs, stage_seconds
from unspoiled.pipeline._run import STAGES, RunOutcome, Stage, open_run, run
from unspoiled.pipeline._search import SearchResult, search
from unspoiled.pipeline._space import kinds_of

__all__ = [
    "AUDIT_FILE",
    "STAGES",
    "Bunch",
    "Evaluation",
    "Push",
    "RunDirectory",
    "RunOutcome",
    "SearchResult",
    "Stage",
    "Unwatched",
    "Watcher",
    "audit",
    "check_config",
    "evaluate",
    "evaluate_models",
    "evaluation_like",
    "generate",
    "kinds_of",
    "known_guards",
    "look_at_hub",
    "open_bunch",
    "open_run",
    "plan_push",
    "push",
    "read_runs",
    "report",
    "report_inputs",
    "run",
    "search",
    "stage_seconds",
    "tallies",
    "write_merged",
]
