"""How good a model is, measured: losses, likelihood, distances, memorisation."""
