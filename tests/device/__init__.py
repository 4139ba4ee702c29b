"""Everything that takes a device, run on an accelerator that is simulated in Python."""
