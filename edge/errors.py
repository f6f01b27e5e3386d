"""Every failure that a caller can see, one class each.

The text of an error goes to the caller as it is: it names the offending value and what
was expected, and never a secret, a path of a secret, or an internal. `edge.rpc.status`
maps each class to its gRPC status.
"""

from collections.abc import Sequence

from edge.text import shown


class EdgeError(Exception):
    """Base of all errors of the agent; never raised itself."""


class ConfigError(EdgeError):
    """The configuration file or a flag is wrong; the text lists every fault, and `warnings` stand beside them."""

    def __init__(self, faults: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(faults)
        self.warnings = tuple(warnings)


class SocketAddressError(EdgeError):
    """The word for a socket is of gRPC's form and wrong (X-10)."""


class SocketInUseError(EdgeError):
    """The socket path exists, or another agent answers on it (X-1)."""


# --- models -----------------------------------------------------------------


class ModelNameError(EdgeError):
    """A model name outside the allowed form (L-1)."""


class ModelExistsError(EdgeError):
    """A model of that name is loaded or being loaded (L-2)."""


class ModelNotFoundError(EdgeError):
    """No model of that name is loaded (P-1, U-1, D, C-2)."""

    @classmethod
    def of(cls, name: str) -> "ModelNotFoundError":
        """The error of a call that names such a model."""
        return cls(f"model {shown(name)} is not loaded")


class ModelGoneError(ModelNotFoundError):
    """The model went while a call was on its way to it; another may serve in its place (W-2)."""


class TensorsChangedError(EdgeError):
    """The model that is to replace another takes or gives other tensors (W-3)."""


class PackageNotFoundError(EdgeError):
    """The url is not a local path, or nothing is there (L-3)."""


class PackageError(EdgeError):
    """The package is not what it must be: layout, file set, archive (L-4, L-11)."""


class ManifestError(PackageError):
    """The manifest is missing or malformed (S-1)."""


class SignatureError(PackageError):
    """The signature is missing, malformed or does not match (S-2, S-5)."""


class TrustError(PackageError):
    """The signer does not lead to a trusted root, or may not sign models (S-3, S-4, S-6)."""


class TargetError(EdgeError):
    """The package is for another machine, runtime or delegate (L-5)."""


class UnsupportedModelError(EdgeError):
    """The model has a tensor of a kind the API cannot carry (T, L-5)."""


class MemoryLimitError(EdgeError):
    """Memory for the model is not available (L-6)."""


class ModelRefusedError(EdgeError):
    """The runtime refuses the model file (L-7)."""


class SelfTestError(ModelRefusedError):
    """The model does not answer the package's self-test as it must (L-13)."""


class DeclarationError(EdgeError):
    """The declaration of a model is none (M-3)."""


class StoreError(EdgeError):
    """The package store, or its state, cannot be used."""


class StoreFullError(StoreError):
    """A package finds no room in the package store."""


class VersionRefusedError(EdgeError):
    """A version that was taken back is not tried again by itself (W-7)."""


class NoPreviousError(EdgeError):
    """There is no version to go back to."""


class FleetError(EdgeError):
    """Models do not come from the fleet now; what serves serves on (F)."""


class StateError(EdgeError):
    """The model keeps no state that could be reset."""


class LoadQueueFullError(EdgeError):
    """Too many loads are waiting already."""


class NotOfferedError(EdgeError):
    """The call is of a protocol that the agent speaks, and not one that it offers (O-11)."""


class RequestsFullError(EdgeError):
    """The requests that are being answered take as much memory as they may (B-5)."""


# --- predict ----------------------------------------------------------------


class RequestError(EdgeError):
    """The request's bytes are not the message the call takes."""


class TensorError(EdgeError):
    """A tensor does not fit the model (P-2)."""


class SharedMemoryError(EdgeError):
    """A shared-memory handle cannot be used (P-3)."""


class DeniedError(EdgeError):
    """The call is for administrators alone (X-15)."""


class RegionExistsError(EdgeError):
    """A region of POSIX shared memory has that name already (O-17)."""


class RegionNotFoundError(EdgeError):
    """No region of POSIX shared memory has that name (O-17)."""


class RegionsFullError(EdgeError):
    """There are as many regions of POSIX shared memory, or as many bytes of them, as are allowed (O-18)."""


class QueueFullError(EdgeError):
    """More calls are waiting than the queue allows (P-4)."""


class DeadlineError(EdgeError):
    """The caller's deadline passed before its turn (P-5), or while the model worked for it (P-19)."""


class CallEndedError(EdgeError):
    """The call was cancelled, or its client went away, before it was answered (P-5, P-19)."""


class StuckError(EdgeError):
    """The inference took longer than the agent lets one (P-20)."""


class AcceleratorError(EdgeError):
    """The accelerator fails, and the CPU may not take over (ACC-5)."""


class InferenceError(EdgeError):
    """The runtime fails on these inputs (P-6)."""


class InferenceEndedError(EdgeError):
    """The inference was ended before it had an answer; whoever had it ended knows why."""


# --- capture ----------------------------------------------------------------


class CaptureIdError(EdgeError):
    """A capture id outside the allowed form (C-1)."""


class CaptureExistsError(EdgeError):
    """The capture id was already taken (C-3)."""


class CaptureTimeError(EdgeError):
    """The inference timestamp lies in the future or is not a time (C-4)."""


class CaptureContentError(EdgeError):
    """A tensor or auxiliary entry of a capture is malformed (C-5)."""


class BufferFullError(EdgeError):
    """The capture buffer is full (C-6)."""


class SpoolFullError(EdgeError):
    """The spool is over a disk bound, or the disk is full (C-6)."""


class BudgetSpentError(EdgeError):
    """The day's budget of a capture policy is spent (K-4)."""


class CaptureNotFoundError(EdgeError):
    """The capture id is unknown (G-1)."""


class StoppingError(EdgeError):
    """The agent is stopping and takes no new calls (X-4)."""
