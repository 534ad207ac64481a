"""What a setting may be: the same refusal for the settings of all rooms."""

from labkit.errors import InputError


def within(low: int | float, high: int | float, **values: int | float) -> None:
    """Raises InputError that names the first of the values outside of low..high, not-a-number included."""
    for name, value in values.items():
        if not low <= value <= high:
            raise InputError(f"{name} must lie between {low:.12g} and {high:.12g}; got {value}.")
