"""The parts of the `clcae` command; `clcae_lib.cli` puts them together."""
