"""The ruler: classifiers, features, metrics, and the grid of conditional tasks."""
