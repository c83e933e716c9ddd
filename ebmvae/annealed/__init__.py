"""Ours: the noise-conditional energy, its losses and its sampler."""
