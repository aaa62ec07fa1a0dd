"""Names for addresses."""


def slug(text):
    """Letters and digits in lower case, everything else as single hyphens between them."""
    return text.lower().replace(" ", "-")
