"""What a person sees of a run afterwards: the page, its curves, and other programs' logs."""
