"""Files as other people bring them: each row of a log of public bug reports, made here and tried."""
