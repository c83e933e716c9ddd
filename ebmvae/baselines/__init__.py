"""Joint-posterior VAEs, one file per method: its loss and its conditional sampler."""
