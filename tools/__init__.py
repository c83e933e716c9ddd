"""What drives the DAG: the parallel runner, the number of modalities, sweeps."""
