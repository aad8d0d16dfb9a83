"""Warnings and errors of the library, each of a class of its own so that they can be caught or silenced."""


class HessalignWarning(UserWarning):
    """What all warnings of the library are."""


class NoEffectWarning(HessalignWarning):
    """Something was asked for that changes nothing: a penalty over one domain, weights without domain ids."""


class UntrustworthyWarning(HessalignWarning):
    """A number was computed that should not be believed as it stands; the text says why and what to do."""


class DivergedError(RuntimeError):
    """A training run whose loss or parameters are no longer finite."""
