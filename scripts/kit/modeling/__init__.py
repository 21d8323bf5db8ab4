"""The base model and its adapter on a device, with whichever stack is installed."""
