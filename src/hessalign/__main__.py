"""``python -m hessalign``."""

from hessalign.cli.main import app

app(prog_name="hessalign")
