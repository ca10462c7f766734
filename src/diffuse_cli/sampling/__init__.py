"""From prompts to pictures, and from a picture to noise."""
