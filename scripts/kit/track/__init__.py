"""Trackers that follow a run's metrics from a process of their own."""
