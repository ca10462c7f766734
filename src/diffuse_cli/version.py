"""The version of the program, where importing it costs nothing."""

__version__ = "0.1.0"
