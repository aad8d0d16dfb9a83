"""For the API reference: a package shows what it exports, not the list of it; an example is shown as code."""

import re
from typing import Any

import griffe


class Exported(griffe.Extension):
    """Reads docstrings and lists of exports as they are meant."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Take ``__all__`` out of a package and all below it, once it has told what is exported."""
        for module in (pkg, *(m for m in pkg.modules.values() if not m.is_alias)):
            if module is not pkg:
                self.on_package(pkg=module)
        pkg.members.pop("__all__", None)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take a section ``Example:`` as ``Examples:``, of which Griffe knows that it holds code."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
