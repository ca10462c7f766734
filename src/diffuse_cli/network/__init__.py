"""The U-Net and the text encoder, as functions of tensors."""
