"""The work: knows torch, never the terminal."""
