"""Environments from locks: what makes them, and what can stand in the way."""
