"""How the command line looks: lines, progress bars, the live display, previews."""
