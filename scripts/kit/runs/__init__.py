"""Runs there are: found, summed up, listed, compared, followed, verified."""
