"""Files to (image, caption) to tensors: reads user folders, never writes into them."""
