"""Models in the form that others load: written beside their place, compared with the original, then put there."""
