"""Files as other people bring them: cases of a log of public bug reports, by its numbers."""
