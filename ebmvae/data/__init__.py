"""Tuples and latents on disk, as all other stages read them."""
