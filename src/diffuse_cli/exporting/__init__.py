"""Exports of a model for other programs: written to a temporary place, compared with the model, then published."""
