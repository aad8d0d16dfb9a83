"""For the API reference: a package shows what it exports, and not the list of it."""

from typing import Any

import griffe


class Exported(griffe.Extension):
    """Takes ``__all__`` out of the pages, once it has told what is exported."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through the package and all below it."""
        for module in (pkg, *(m for m in pkg.modules.values() if not m.is_alias)):
            if module is not pkg:
                self.on_package(pkg=module)
        pkg.members.pop("__all__", None)
