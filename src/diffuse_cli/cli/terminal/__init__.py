"""What the command line shows: lines of text, progress bars, the live display of a training, pictures."""
