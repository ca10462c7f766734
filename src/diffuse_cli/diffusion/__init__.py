"""The mathematics of diffusion: tensors and functions in, tensors out; has never heard of a network."""
