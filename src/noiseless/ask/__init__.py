"""Questions to a run's states, with their answers kept in the run."""
