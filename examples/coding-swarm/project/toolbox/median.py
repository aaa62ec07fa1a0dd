"""The middle of some numbers."""


def median(numbers):
    """The middle one in order; of an even count the mean of the two in the middle."""
    return numbers[len(numbers) // 2]
