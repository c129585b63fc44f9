"""The backend in torch, for every device: what each function returns is said here."""

from semreg.core.kernels.reference.backend import REFERENCE

__all__ = ["REFERENCE"]
