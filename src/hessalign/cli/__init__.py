"""The ``hessalign`` command."""
