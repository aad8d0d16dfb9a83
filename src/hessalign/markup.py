r"""Names as each format shows them: what users call things is data, never markup.

Every function takes any text and gives text in which the format finds no sign of its own. Control
characters, line breaks and bytes that are no UTF-8 are shown as Python writes them (``\n``, ``\x1b``), the
same everywhere. CSV and JSON need none of this: their writers quote.
"""

import html
import re
import unicodedata

_LINE_SEPARATORS = "\u2028\u2029"
# They turn the direction of what follows, so that a name could rewrite the text around it.
_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",  # other fonts have a closing quotation mark in its place
    "`": r"\textasciigrave{}",
    # After the end of a row these would be read as its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "√": r"$\surd$",
    "×": r"$\times$",
    "°": r"$^\circ$",
    "\u00a0": "~",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_LATEX_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def visible(text: str) -> str:
    r"""Text on one line, without signs that a terminal or an editor would obey.

    Args:
        text: Anything, line breaks, escape sequences and undecodable bytes among it.

    Returns:
        One line.

    Examples:
        >>> visible("day\nnight")
        'day\\nnight'
    """
    return "".join(_escaped(sign) if _is_obeyed(sign) else sign for sign in text)


def html_text(text: str) -> str:
    """Text for HTML, inside an element or a quoted attribute."""
    return html.escape(visible(text))


def markdown_text(text: str) -> str:
    """Text for Markdown, inside a line, a heading or a cell of a table."""
    return re.sub(r"[\\`*_|<\[\]&~$#]", r"\\\g<0>", visible(text))


def markdown_line(text: str) -> str:
    """Text for Markdown that starts a line, where some signs make lists and quotations."""
    escaped = re.sub(r"^(\s*)([+>=-])", r"\1\\\2", markdown_text(text))
    return re.sub(r"^(\s*\d+)([.)])", r"\1\\\2", escaped)


def latex_text(text: str) -> str:
    """Text for LaTeX, in whatever encoding of fonts; what it cannot set is shown by its number in Unicode."""
    # Two hyphens would become a dash, two apostrophes a quotation mark.
    parts = re.split(r"(?<=-)(?=-)|(?<=')(?=')", visible(text))
    return "{}".join("".join(map(_latex_sign, part)) for part in parts)


def plot_text(text: str) -> str:
    """Text for matplotlib: no formula between dollars, and no label that a legend leaves out."""
    shown = visible(text).replace("$", r"\$")
    # Legends skip labels that start with an underscore; a space without width is not seen.
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _is_obeyed(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs") or sign in _LINE_SEPARATORS or sign in _DIRECTION


def _escaped(sign: str) -> str:
    if 0xDC80 <= ord(sign) <= 0xDCFF:  # a byte that is no UTF-8, as file names carry it
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


def _latex_sign(sign: str) -> str:
    if sign in _LATEX:
        return _LATEX[sign]
    if sign.isascii():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _LATEX_ACCENTS:
        return f"\\{_LATEX_ACCENTS[parts[1]]}{{{parts[0]}}}"
    words = unicodedata.name(sign, "").split()
    if words[:3] == ["GREEK", "SMALL", "LETTER"] and len(words) == 4 and words[3] != "OMICRON":
        return f"$\\{words[3].lower().replace('lamda', 'lambda')}$"
    return f"{{[}}U+{ord(sign):04X}{{]}}"


def counted(number: int, noun: str) -> str:
    """A number of things as one says it.

    Returns:
        ``"1 domain"``, say, ``"2,000 domains"``.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
