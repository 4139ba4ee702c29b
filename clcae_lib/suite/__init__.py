"""Run the notebooks: profiles, runs, sweeps and the report.

This module has what notebooks use: `Recorder` for their results; `ablation_runs`, `read_runs` and
`sweep_tables` for the results of others. The command line uses `clcae_lib.suite.runner` and
`clcae_lib.suite.sweep`, which import papermill.
"""

import sys

from clcae_lib.suite.collect import ablation_runs, read_runs, sweep_tables
from clcae_lib.suite.record import NotebookError, Recorder, SuiteError

# nbformat imports jsonschema, which imports this package if it is there, which compiles a grammar of
# international web addresses (IRIs): 1.1 of the 2.6 s that `clcae_lib.suite.sweep` takes. Without it
# jsonschema checks all but IRIs, of which notebooks have none. What is imported already stays.
sys.modules.setdefault("rfc3987_syntax", None)
