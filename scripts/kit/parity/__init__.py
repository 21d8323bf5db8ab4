"""The parity contract: a small canonical training whose every number is known, to compare any machine with."""
