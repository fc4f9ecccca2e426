"""What asynccache promises in speed, measured beside its peers: `python -m benchmarks`."""
