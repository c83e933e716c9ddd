"""The VAEs: networks, likelihoods, Gaussian experts, ELBOs."""
