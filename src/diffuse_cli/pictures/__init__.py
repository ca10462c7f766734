"""Pixels, sheets of pictures, and the bytes of image files."""
