"""The parity contract: a small canonical training whose every number is known, for any machine to agree with."""
