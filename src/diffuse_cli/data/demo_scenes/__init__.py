"""The demo data set: drawn scenes of 24 objects in 12 colours, with captions."""
