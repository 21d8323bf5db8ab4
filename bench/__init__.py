"""The benchmark: what each lever is worth on this device, against trl's own defaults, in one run."""
