"""Train a text-conditional image diffusion model on a folder of your own pictures, and sample it."""

__version__ = "0.1.0"
