"""The machine: devices, processes, memory and random numbers."""
