"""The container image: the engine it needs, how it is built and started, and what it says of itself inside."""
