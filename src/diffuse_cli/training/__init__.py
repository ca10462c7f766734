"""Training: a plan and pictures in, events and a model out."""
