"""Known vulnerabilities of what the locks pin: asked of a service, or looked up in a saved database, then judged."""
