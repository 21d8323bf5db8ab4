"""The environment: its facts, the device at work, and the checks over both."""
