"""The campaign on reliability and security: every fault that was found, tried again by `make campaign`."""
