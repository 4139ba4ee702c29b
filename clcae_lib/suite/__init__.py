"""Run the notebooks: profiles, runs, sweeps and the report.

This module has what notebooks use: `Recorder` for their results; `ablation_runs`, `read_runs` and
`sweep_tables` for the results of others. The command line uses `clcae_lib.suite.runner` and
`clcae_lib.suite.sweep`, which import papermill.
"""

from clcae_lib.suite.collect import ablation_runs, read_runs, sweep_tables
from clcae_lib.suite.record import NotebookError, Recorder, SuiteError

__all__ = ["NotebookError", "Recorder", "SuiteError", "ablation_runs", "read_runs", "sweep_tables"]
