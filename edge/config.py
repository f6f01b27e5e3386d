"""The configuration file: one table of settings, and a frozen `Config` out of it.

The file is a JSON object. The original agent's keys carry the prefix `sagemaker_edge_`; those that begin with `edge_` are
this agent's own. All faults are reported at once. Text that spells the right type ("true", "8") is accepted, because
deployment tools substitute text.
"""

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge import json_faults
from edge.access import is_credential
from edge.errors import ConfigError
from edge.settings import OLD_NAMES, PREFIX, SETTINGS, UNUSED, Kind, Setting
from edge.text import cut

INSTALLED_CONFIG = "/etc/sagemaker-edge-agent/config.json"  # read where none is named
MAX_CONFIG_BYTES = 1 << 20
MODE_ENVIRONMENT = "STATE_DIRECTORY"
_TRUE_FALSE = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")


@dataclass(frozen=True)
class Config:
    """The effective configuration; one attribute a setting, named as in SETTINGS."""

    core_device_name: str
    core_device_fleet_name: str
    core_iot_thing_name: str
    core_region: str
    core_root_certs_path: str
    core_endpoint_override: str
    provider_provider: str
    provider_provider_path: str
    provider_aws_ca_cert_file: str
    provider_aws_cert_file: str
    provider_aws_cert_pk_file: str
    provider_aws_iot_cred_endpoint: str
    provider_s3_bucket_name: str
    core_folder_prefix: str
    core_capture_data_destination: str
    core_capture_data_disk_path: str
    core_capture_data_buffer_size: int
    core_capture_data_batch_size: int
    core_capture_data_push_period_seconds: int
    core_capture_data_base64_embed_limit: int
    core_capture_data_periodic_upload: bool
    core_capture_data_periodic_upload_period_seconds: int
    log_verbose: bool
    edge_model_instances: int
    edge_model_threads: int
    edge_queue_calls: int
    edge_inference_stuck_seconds: int
    edge_memory_budget_mib: int
    edge_strict_tensors: bool
    edge_delegate_paths: tuple[str, ...]
    edge_spool_path: str
    edge_spool_max_mib: int
    edge_spool_max_files: int
    edge_spool_min_free_mib: int
    edge_spool_full_policy: str
    edge_capture_buffer_mib: int
    edge_rpc_server: str
    edge_upload_verify: str
    edge_receive_max_mib: int
    edge_requests_max_mib: int
    edge_upload_max_kib_per_second: int


@dataclass(frozen=True)
class Loaded:
    """A configuration, where each value came from ("file", "file (old name …)" or "default"), and warnings in words."""

    config: Config
    sources: dict[str, str]
    warnings: tuple[str, ...]


def load_config(path: str | Path) -> Loaded:
    """Read and check a configuration file.

    Raises:
        ConfigError: with every fault, one a line.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}") from None
    return parse_config(data, f"the configuration file {path}")


def parse_config(data: bytes, file: str = "the configuration") -> Loaded:
    """Check the bytes of a configuration file, which messages call `file`; see `load_config`."""
    given = _parse_json(data, file)
    faults: list[str] = []
    wrong: set[str] = set()  # settings whose value is reported already
    warnings: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        key, raw = _consume(given, setting, faults, warnings)
        sources[setting.name] = "default" if key is None else "file" if key == setting.key else f"file, as {key}"
        values[setting.name] = setting.default
        if key is not None:
            try:
                values[setting.name] = _convert(setting, raw)
            except ValueError as fault:
                wrong.add(setting.name)
                faults.append(f"{key}: {_shown(raw)} is not allowed; expected {fault}")
    for key in given:
        if key.removeprefix(PREFIX) in UNUSED and key.startswith(PREFIX):
            warnings.append(f"{key} is not used by this agent and is ignored")
        else:
            warnings.append(f"{key} is not a known key and is ignored{_nearest(key)}")
    _derive(values, sources)
    _check_together(values, sources, wrong, faults, warnings)
    if faults:
        raise ConfigError("\n".join(faults), warnings)
    return Loaded(Config(**values), sources, tuple(warnings))


def _parse_json(data: bytes, file: str) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file} is larger than {MAX_CONFIG_BYTES} bytes")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            names = [name for name, _ in pairs]
            raise ConfigError(f"{file}: {next(n for n in names if names.count(n) > 1)}: the key stands twice")
        return seen

    try:
        given = json.loads(data.decode("utf-8-sig"), object_pairs_hook=no_repeats)
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} is not JSON: {json_faults.explain(error)}") from None
    except (RecursionError, ValueError):
        raise ConfigError(f"{file} is not JSON that an agent can use: nested too deep, or a number too long") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{file} must be a JSON object, not {_shown(given)}")
    return given


def _consume(given: dict[str, Any], setting: Setting, faults: list[str], warnings: list[str]) -> tuple[str | None, Any]:
    """Take a setting's key, or its old name, out of `given`."""
    keys = [key for key in (setting.key, *(PREFIX + old for old in OLD_NAMES.get(setting.name, ()))) if key in given]
    taken = [(key, given.pop(key)) for key in keys]
    if not taken:
        if setting.required:
            faults.append(f"{setting.key}: missing; expected {setting.expected}")
        return None, None
    if len(taken) > 1:
        warnings.append(f"{taken[1][0]} is the old name of {taken[0][0]} and is ignored beside it")
    return taken[0]


def _convert(setting: Setting, raw: Any) -> Any:
    """The value in the setting's type. Raises ValueError with what is expected."""
    kind, value = setting.kind, raw
    if kind in (Kind.INT, Kind.BOOL) and isinstance(raw, str):
        text = raw.strip()
        if kind is Kind.BOOL:
            value = _TRUE_FALSE.get(text.lower(), raw)
        elif _INTEGER.match(text):
            value = int(text)
    if not _fits(setting, value):
        raise ValueError(setting.expected)
    return tuple(value) if kind is Kind.PATHS else value


def _fits(setting: Setting, value: Any) -> bool:
    kind = setting.kind
    if kind is Kind.BOOL:
        return isinstance(value, bool)
    if kind is Kind.INT:
        return isinstance(value, int) and not isinstance(value, bool) and setting.low <= value <= setting.high
    if kind is Kind.PATHS:
        return isinstance(value, list) and all(isinstance(item, str) and _is_path(item) for item in value)
    if not isinstance(value, str) or len(value) > setting.high or any(not c.isprintable() for c in value):
        return False
    if value == "" and not setting.required:
        return True
    if kind is Kind.CHOICE:
        return value in setting.choices
    if kind is Kind.PATH or (kind is Kind.CREDENTIAL and not is_credential(value)):
        return _is_path(value)
    if kind is Kind.URL:
        return _is_url(value)
    return setting.pattern is None or re.fullmatch(setting.pattern, value) is not None


def _is_path(value: str) -> bool:
    return value.startswith("/") and "\0" not in value


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _derive(values: dict[str, Any], sources: dict[str, str]) -> None:
    """Fill in what follows from other settings."""

    def fill(name: str, value: Any, source: str) -> None:
        if values[name] == "":
            values[name], sources[name] = value, source

    fill("core_iot_thing_name", values["core_device_name"], "the device name")
    bucket = values["provider_s3_bucket_name"]
    fill("provider_provider", "Aws" if bucket else "None", "a bucket is set" if bucket else "no bucket is set")
    disk, state = values["core_capture_data_disk_path"], os.environ.get(MODE_ENVIRONMENT, "").split(":")[0]
    if values["core_capture_data_destination"] == "Disk" and disk:
        fill("edge_spool_path", disk.rstrip("/") + "/.spool", "inside the capture folder")
    elif _is_path(state):
        fill("edge_spool_path", state + "/spool", MODE_ENVIRONMENT)
    else:
        fill("edge_spool_path", "/var/lib/sagemaker-edge-agent/spool", "default")


def _check_together(
    values: dict[str, Any], sources: dict[str, str], wrong: set[str], faults: list[str], warnings: list[str]
) -> None:
    """Checks that take more than one setting, but for those whose own value is `wrong`: one fault is one line."""

    def need(name: str, reason: str) -> None:
        if values[name] == "" and name not in wrong:
            faults.append(f"{PREFIX}{name}: missing; it is required {reason}")

    cloud = values["core_capture_data_destination"] == "Cloud"
    uploads = cloud or values["core_capture_data_periodic_upload"]
    if not cloud and "core_capture_data_destination" not in wrong:
        need("core_capture_data_disk_path", "when captures go to Disk")
    if values["provider_provider"] == "Aws":
        need("core_region", "with provider Aws")
        need("provider_s3_bucket_name", "with provider Aws")
        _check_credentials(values, wrong, faults)
        bucket = values["provider_s3_bucket_name"]
        if bucket and "sagemaker" not in bucket:
            warnings.append(
                f"{PREFIX}provider_s3_bucket_name: {bucket} does not contain 'sagemaker'; policies made for the original agent may not cover it"
            )
    elif uploads and not wrong & {"provider_provider", "provider_s3_bucket_name"}:
        faults.append(
            f"{PREFIX}core_capture_data_{'destination' if cloud else 'periodic_upload'}: captures are to be uploaded, but "
            f"the provider is {values['provider_provider']}; expected provider Aws and {PREFIX}provider_s3_bucket_name"
        )
    if values["provider_provider_path"]:
        warnings.append(f"{PREFIX}provider_provider_path is not used by this agent and is ignored")
    if values["provider_provider"] == "Custom":
        faults.append(
            f"{PREFIX}provider_provider: Custom providers are shared objects of the original agent and cannot be loaded; expected Aws or None"
        )
    batch, buffer = values["core_capture_data_batch_size"], values["core_capture_data_buffer_size"]
    if wrong & {"core_capture_data_batch_size", "core_capture_data_buffer_size"}:
        return
    if batch > buffer and sources["core_capture_data_batch_size"] == "default":
        values["core_capture_data_batch_size"] = buffer
        sources["core_capture_data_batch_size"] = "the buffer size"
    elif batch > buffer:
        faults.append(
            f"{PREFIX}core_capture_data_batch_size: {batch} is not allowed; expected less than {PREFIX}core_capture_data_buffer_size ({buffer})"
        )
    elif batch == buffer:
        warnings.append(
            f"{PREFIX}core_capture_data_batch_size equals the buffer size ({buffer}): calls may be refused while a batch is written"
        )


def _check_credentials(values: dict[str, Any], wrong: set[str], faults: list[str]) -> None:
    """The IoT settings come together or not at all (then the environment gives the credentials)."""
    names = (
        "provider_aws_ca_cert_file",
        "provider_aws_cert_file",
        "provider_aws_cert_pk_file",
        "provider_aws_iot_cred_endpoint",
    )
    missing = [name for name in names if values[name] == "" and name not in wrong]
    if missing and len(missing) < len(names):
        faults.extend(
            f"{PREFIX}{name}: missing; the IoT credentials need all four of provider_aws_*" for name in missing
        )
    endpoint = values["provider_aws_iot_cred_endpoint"]
    if endpoint and not re.fullmatch(r"https://[^/?#@]+/role-aliases/[^/?#]+/credentials", endpoint):
        faults.append(
            f"{PREFIX}provider_aws_iot_cred_endpoint: {_shown(endpoint)} is not allowed; expected https://HOST/role-aliases/ALIAS/credentials"
        )


def _shown(value: Any) -> str:
    """A value as the file has it, cut to a readable length."""
    text = json.dumps(value)
    return cut(text, 80)


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, [setting.key for setting in SETTINGS], n=1, cutoff=0.85)
    return f" (did you mean {near[0]}?)" if near else ""


def describe(loaded: Loaded) -> str:
    """The effective configuration with where each value came from, a line each (X-3)."""
    values = dataclasses.asdict(loaded.config)
    width = max(len(setting.key) for setting in SETTINGS)
    return "\n".join(
        f"{setting.key:<{width}}  {_shown(values[setting.name])}  ({loaded.sources[setting.name]})"
        for setting in SETTINGS
    )
