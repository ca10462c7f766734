"""Arrays to image files, sheets and strips, and back."""
