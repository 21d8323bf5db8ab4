"""What the gate, the tests and CI share."""
