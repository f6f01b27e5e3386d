from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyModelsRequest(_message.Message):
    __slots__ = ("names", "retry")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    retry: bool
    def __init__(self, names: _Optional[_Iterable[str]] = ..., retry: _Optional[bool] = ...) -> None: ...

class ApplyModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ManagedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ManagedModel, _Mapping]]] = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ManagedModel(_message.Message):
    __slots__ = ("name", "why", "package", "version", "since_unix_seconds", "committed", "previous_version", "released", "refused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    why: str
    package: str
    version: str
    since_unix_seconds: int
    committed: bool
    previous_version: str
    released: bool
    refused: str
    def __init__(self, name: _Optional[str] = ..., why: _Optional[str] = ..., package: _Optional[str] = ..., version: _Optional[str] = ..., since_unix_seconds: _Optional[int] = ..., committed: _Optional[bool] = ..., previous_version: _Optional[str] = ..., released: _Optional[bool] = ..., refused: _Optional[str] = ...) -> None: ...

class CheckFleetRequest(_message.Message):
    __slots__ = ()
    FROM_FIELD_NUMBER: _ClassVar[int]
    def __init__(self, **kwargs) -> None: ...

class FleetStatus(_message.Message):
    __slots__ = ("fleet", "repository", "deployment", "state", "models", "checked_unix_seconds", "last_error", "judged_by")
    FLEET_FIELD_NUMBER: _ClassVar[int]
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    JUDGED_BY_FIELD_NUMBER: _ClassVar[int]
    fleet: str
    repository: str
    deployment: str
    state: str
    models: _containers.RepeatedCompositeFieldContainer[FleetModel]
    checked_unix_seconds: int
    last_error: str
    judged_by: str
    def __init__(self, fleet: _Optional[str] = ..., repository: _Optional[str] = ..., deployment: _Optional[str] = ..., state: _Optional[str] = ..., models: _Optional[_Iterable[_Union[FleetModel, _Mapping]]] = ..., checked_unix_seconds: _Optional[int] = ..., last_error: _Optional[str] = ..., judged_by: _Optional[str] = ...) -> None: ...

class FleetModel(_message.Message):
    __slots__ = ("name", "package", "refused", "pinned")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    package: str
    refused: str
    pinned: bool
    def __init__(self, name: _Optional[str] = ..., package: _Optional[str] = ..., refused: _Optional[str] = ..., pinned: _Optional[bool] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetStateRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResetStateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TensorStatus(_message.Message):
    __slots__ = ("name", "data_type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "package_name", "package_version", "state", "instances", "waiting", "running", "predicted", "memory_bytes", "mislabelled", "inputs", "outputs", "warning", "url", "engine", "failed", "inference_counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_NAME_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MISLABELLED_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    package_name: str
    package_version: str
    state: str
    instances: int
    waiting: int
    running: int
    predicted: int
    memory_bytes: int
    mislabelled: int
    inputs: _containers.RepeatedCompositeFieldContainer[TensorStatus]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorStatus]
    warning: str
    url: str
    engine: str
    failed: int
    inference_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., package_name: _Optional[str] = ..., package_version: _Optional[str] = ..., state: _Optional[str] = ..., instances: _Optional[int] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., predicted: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., mislabelled: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[TensorStatus, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorStatus, _Mapping]]] = ..., warning: _Optional[str] = ..., url: _Optional[str] = ..., engine: _Optional[str] = ..., failed: _Optional[int] = ..., inference_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class CaptureStatus(_message.Message):
    __slots__ = ("destination", "pending", "pending_bytes", "oldest_pending_unix_seconds", "succeeded", "failed", "dropped", "last_error", "last_error_unix_seconds", "refused", "refusing_since_unix_seconds", "policy_kept", "policy_full", "policy_failed")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PENDING_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSING_SINCE_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    POLICY_KEPT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FULL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FAILED_FIELD_NUMBER: _ClassVar[int]
    destination: str
    pending: int
    pending_bytes: int
    oldest_pending_unix_seconds: int
    succeeded: int
    failed: int
    dropped: int
    last_error: str
    last_error_unix_seconds: int
    refused: int
    refusing_since_unix_seconds: int
    policy_kept: int
    policy_full: int
    policy_failed: int
    def __init__(self, destination: _Optional[str] = ..., pending: _Optional[int] = ..., pending_bytes: _Optional[int] = ..., oldest_pending_unix_seconds: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., dropped: _Optional[int] = ..., last_error: _Optional[str] = ..., last_error_unix_seconds: _Optional[int] = ..., refused: _Optional[int] = ..., refusing_since_unix_seconds: _Optional[int] = ..., policy_kept: _Optional[int] = ..., policy_full: _Optional[int] = ..., policy_failed: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "started_unix_seconds", "engine", "models", "captures", "memory_budget_bytes", "memory_reserved_bytes", "managed", "models_path", "bucket_seconds", "fleet")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CAPTURES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MANAGED_FIELD_NUMBER: _ClassVar[int]
    MODELS_PATH_FIELD_NUMBER: _ClassVar[int]
    BUCKET_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    version: str
    started_unix_seconds: int
    engine: str
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    captures: CaptureStatus
    memory_budget_bytes: int
    memory_reserved_bytes: int
    managed: _containers.RepeatedCompositeFieldContainer[ManagedModel]
    models_path: str
    bucket_seconds: _containers.RepeatedScalarFieldContainer[float]
    fleet: FleetStatus
    def __init__(self, version: _Optional[str] = ..., started_unix_seconds: _Optional[int] = ..., engine: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., captures: _Optional[_Union[CaptureStatus, _Mapping]] = ..., memory_budget_bytes: _Optional[int] = ..., memory_reserved_bytes: _Optional[int] = ..., managed: _Optional[_Iterable[_Union[ManagedModel, _Mapping]]] = ..., models_path: _Optional[str] = ..., bucket_seconds: _Optional[_Iterable[float]] = ..., fleet: _Optional[_Union[FleetStatus, _Mapping]] = ...) -> None: ...
