"""Pages: the one template engine behind every HTML page of the library.

Templates lie in ``hessalign/templates``; ``page.html`` is what all pages have in common. A page needs nothing
but itself: style, script and figures stand in it. Every value is data: what is printed is made visible as
``hessalign.markup`` does it, and escaped.
"""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hessalign.markup import visible


def render(template: str, **values: Any) -> str:
    """A page, or a part of one.

    Args:
        template: File in ``hessalign/templates``.
        **values: What the template shows; a name that it does not find is an error, not a gap.

    Returns:
        HTML.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hessalign", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """Text without signs that an editor or a terminal would obey; what a template made is left alone."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
