"""The one door to the disk: durable writes and strict JSON. Standard library only."""
