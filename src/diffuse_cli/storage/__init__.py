"""Models, training states and runs on the disk: how they are written, read and judged."""
