"""Names that clients made up, in a form that no terminal and no reader of lines obeys."""


def inert(text: str) -> str:
    """Write characters that are no text, line ends and terminal commands say, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
