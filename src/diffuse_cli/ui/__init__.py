"""The local page of `diffuse ui`: its server, its queue of drawings, and what a browser loads."""
