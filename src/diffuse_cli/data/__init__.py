"""From a folder of pictures and captions to arrays; never writes into the user's folder."""
