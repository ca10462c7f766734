"""The terminal: the only room that knows typer and rich."""
