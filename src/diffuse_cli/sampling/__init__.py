"""Generates pictures from prompts, records their settings in PNGs, and demonstrates forward diffusion."""
