"""The demo's task and its base model."""
