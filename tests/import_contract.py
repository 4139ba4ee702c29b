"""The import contract that `make lint` adds to import-linter's own: private modules stay private."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class PrivateModulesContract(Contract):
    """A module whose name begins with an underscore is imported only from within its package."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return whether the contract is kept, with the imports that break it."""
        broken = []
        for private in sorted(graph.modules):
            package, _, name = private.rpartition(".")
            if name.startswith("_"):
                importers = sorted(graph.find_modules_that_directly_import(private))
                outside = [one for one in importers if not f"{one}.".startswith(f"{package}.")]
                broken += [(importer, private) for importer in outside]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that breaks the contract."""
        for importer, private in check.metadata["broken"]:
            output.print_error(f"{importer} imports {private}, which is private to its package")
