"""The stages: one flat script per DVC stage, run as `python -m stages.NAME`."""
