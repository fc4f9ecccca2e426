"""The demo: one workload through every strategy, and two scenes that caches usually fail."""
