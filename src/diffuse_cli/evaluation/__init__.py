"""Measures how good a model is: losses, likelihood, distances between pictures, memorisation."""
