"""Energy-Based Multimodal VAEs: the library behind stages/. Importing it has no side effects."""
