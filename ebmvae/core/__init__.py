"""What every stage follows from: files, devices, random numbers, the training loop.

Knows nothing of the rest of the project.
"""
