"""Scripts that answer one question each; docs/results.md and docs/scaling.md report their answers."""
