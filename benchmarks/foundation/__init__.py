"""How the foundation is made: the bundled models from which trainings start. `make.py` is its command.

All material is free: what is drawn here and by `diffuse data demo`, and clip art that its authors put into the public
domain. Words get their meaning from WordNet's definitions.
"""
