"""Reports of a run for people: its HTML page and charts, plots of noise schedules, and logs of other programs."""
