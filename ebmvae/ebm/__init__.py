"""The paper: the joint energy, score matching (eq. 1), Langevin sampling (eq. 2 and 3)."""
