"""Ratios of hessalign's closed forms to plain automatic differentiation: ``python -m benchmarks``."""
