"""The environment: its facts, a test of the device, and the checks on both."""
