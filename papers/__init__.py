"""Studies of papers, on top of the package and no part of it; run from the root of the repository."""
