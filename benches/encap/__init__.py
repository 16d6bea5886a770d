"""Parts of `benches/encap.py`: bed (hosts and wire), engines, traffic, flood, scale, report."""
