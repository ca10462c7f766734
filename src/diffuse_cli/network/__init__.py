"""The U-Net and the text encoder: know shapes, not noise."""
