"""Measurements of diffuse-cli: its speed and quality beside other libraries, and studies of its recipe.

Every script is a module and runs from the root of the repository: `python -m benchmarks.run`,
`python -m benchmarks.studies.recipe`. Nothing is imported here: workers in the environment of the other libraries
import this package too.
"""
