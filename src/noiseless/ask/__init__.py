"""Analyses of a run at one of its states; the answers are kept as files of the run."""
