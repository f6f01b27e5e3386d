"""The configuration file: one table of settings, and a frozen `Config` out of it.

The file is a JSON object. The original agent's keys carry the prefix `sagemaker_edge_`; those that begin with `edge_` are
this agent's own. All faults are reported at once. Text that spells the right type ("true", "8") is accepted, because
deployment tools substitute text.
"""

import dataclasses
import json
import re
from codecs import BOM_UTF8  # editors on Windows put it before the text
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.access import is_credential
from edge.capture_policy import PolicyFault, parse_policies
from edge.config_rules import check_together, derive, keep_on_disk, shown_value, unused_settings
from edge.errors import ConfigError
from edge.paths import absolute
from edge.settings import OLD_NAMES, PREFIX, PRINCIPAL_PATTERN, SETTINGS, UNUSED, Kind, Setting
from edge.strict_json import JsonFault
from edge.strict_json import parse_object as parse_strictly

INSTALLED_CONFIG = "/etc/sagemaker-edge-agent/config.json"  # read where none is named
MODELS_FOLDER = "models.d"  # of declarations, beside the configuration file
MAX_CONFIG_BYTES = 1 << 20  # of the configuration file, which is read whole
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
    edge_log_stream: str
    edge_model_instances: int
    edge_model_threads: int
    edge_queue_calls: int
    edge_inference_stuck_seconds: int
    edge_memory_budget_mib: int
    edge_strict_tensors: bool
    edge_models_path: str
    edge_package_store_path: str
    edge_package_store_max_mib: int
    edge_models_strict: bool
    edge_fleet_repository: str
    edge_fleet_root: str
    edge_fleet_poll_seconds: int
    edge_fleet_reports: str
    edge_fleet_heartbeat_seconds: int
    edge_fleet_path: str
    edge_delegate_paths: tuple[str, ...]
    edge_spool_path: str
    edge_spool_max_mib: int
    edge_spool_max_files: int
    edge_spool_min_free_mib: int
    edge_spool_full_policy: str
    edge_capture_records_per_file: int
    edge_capture_compress: str
    edge_capture_policies: dict[str, Any]
    edge_capture_summary_seconds: int
    edge_capture_buffer_mib: int
    edge_engine: str
    edge_accelerators: str
    edge_listen: str
    edge_listen_cert_file: str
    edge_listen_key_file: str
    edge_listen_client_ca_file: str
    edge_admins: tuple[str, ...]
    edge_metrics_listen: str
    edge_metrics_textfile: str
    edge_rpc_server: str
    edge_upload_verify: str
    edge_ca_bundle: str
    edge_receive_max_mib: int
    edge_requests_max_mib: int
    edge_upload_connections: int
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
        what = "this is the default; name another" if str(path) == INSTALLED_CONFIG else "name one that can be read"
        raise ConfigError(f"configuration file {path}: {error.strerror}; {what} with -c CONFIG") from None
    loaded = parse_config(data, f"the configuration file {path}")
    if loaded.config.edge_models_path:
        return loaded
    folder = str(Path(absolute(str(path))).parent / MODELS_FOLDER)
    return Loaded(
        dataclasses.replace(loaded.config, edge_models_path=folder),
        {**loaded.sources, "edge_models_path": "beside the configuration file"},
        loaded.warnings,
    )


def parse_config(data: bytes, file: str = "the configuration") -> Loaded:
    """Check the bytes of a configuration file, which messages call `file`; see `load_config`."""
    given = parse_object(data, file)
    faults: list[str] = []
    wrong: dict[str, str] = {}  # what is wrong with a setting's value
    warnings: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        key, raw = _consume(given, setting, faults, warnings)
        sources[setting.name] = "default" if key is None else "file" if key == setting.key else f"file, as {key}"
        values[setting.name] = setting.default
        if key is None:
            continue
        if isinstance(raw, str) and not raw.strip() and not setting.required:
            sources[setting.name] = "default"  # templates leave values empty
            continue
        try:
            values[setting.name] = _convert(setting, raw)
        except ValueError as fault:
            wrong[setting.name] = f"{key}: {shown_value(raw)} is not allowed; expected {fault}"
        except PolicyFault as fault:
            wrong[setting.name] = f"{key} {fault}"
    for key in given:
        if key.removeprefix(PREFIX) in UNUSED and key.startswith(PREFIX):
            warnings.append(f"{key} is not used by this agent and is ignored")
        else:
            warnings.append(f"{key} is not a known key and is ignored{_nearest(key)}")
    derive(values, sources)
    keep_on_disk(values, sources, warnings)
    unused = unused_settings(values, wrong)
    for name, text in wrong.items():
        if name in unused:
            warnings.append(f"{text}; nothing uses it, and it is ignored")
        else:
            faults.append(text)
    check_together(values, sources, wrong.keys() - unused, faults, warnings)
    if faults:
        raise ConfigError("\n".join(faults), warnings)
    return Loaded(Config(**values), sources, tuple(warnings))


def parse_object(data: bytes, file: str) -> dict[str, Any]:
    """The JSON object of a configuration, which messages call `file`.

    Raises:
        ConfigError: it is none, with the place and the likely cause.
    """
    try:
        return parse_strictly(data.removeprefix(BOM_UTF8), max_bytes=MAX_CONFIG_BYTES)
    except JsonFault as fault:
        raise ConfigError(f"{file} {fault}") from None


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
    """The value in the setting's type. Raises ValueError with what is expected, or PolicyFault."""
    kind, value = setting.kind, raw
    if kind is Kind.POLICIES:
        return _policies(raw)
    if kind in (Kind.INT, Kind.BOOL) and isinstance(raw, str):
        text = raw.strip()
        if kind is Kind.BOOL:
            value = _TRUE_FALSE.get(text.lower(), raw)
        elif _INTEGER.match(text):
            value = int(text)
    if not _fits(setting, value):
        raise ValueError(setting.expected)
    try:
        if kind is Kind.PATHS:
            return tuple(absolute(path) for path in value)
        if kind is Kind.PRINCIPALS:
            return tuple(value)
        return absolute(value) if kind is Kind.PATH or (kind is Kind.CREDENTIAL and not is_credential(value)) else value
    except OSError:
        raise ValueError("an absolute path, for the agent's working folder is gone") from None


def _policies(raw: Any) -> dict[str, Any]:
    """Policies as they are given, once they are known to be some; also as the text that deployment tools make of an object."""
    if isinstance(raw, str):
        try:
            raw = parse_object(raw.encode(), "its text")
        except (ConfigError, UnicodeEncodeError) as error:
            raise PolicyFault(f"is text; expected an object: {error}") from None
    parse_policies(raw)
    given: dict[str, Any] = raw
    return given


def _fits(setting: Setting, value: Any) -> bool:
    kind = setting.kind
    if kind is Kind.BOOL:
        return isinstance(value, bool)
    if kind is Kind.INT:
        return isinstance(value, int) and not isinstance(value, bool) and setting.low <= value <= setting.high
    if kind is Kind.PATHS:
        return isinstance(value, list) and all(isinstance(item, str) and _is_path(item) for item in value)
    if kind is Kind.PRINCIPALS:
        return isinstance(value, list) and all(
            isinstance(item, str) and re.fullmatch(PRINCIPAL_PATTERN, item) for item in value
        )
    if not isinstance(value, str) or len(value) > setting.high or any(not c.isprintable() for c in value):
        return False
    if kind is Kind.CHOICE:
        return value in setting.choices
    if kind is Kind.PATH or (kind is Kind.CREDENTIAL and not is_credential(value)):
        return _is_path(value)
    if kind is Kind.URL:
        return _is_url(value)
    return setting.pattern is None or re.fullmatch(setting.pattern, value) is not None


def _is_path(value: str) -> bool:
    """Whether text can be a path. A `$` or `~` at its start is a template's, and was to be filled in."""
    return value[:1] not in ("", "$", "~") and "\0" not in value


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _nearest(key: str) -> str:
    from difflib import get_close_matches  # only for a key that is not known

    near = get_close_matches(key, [setting.key for setting in SETTINGS], n=1, cutoff=0.85)
    return f" (did you mean {near[0]}?)" if near else ""


def describe(loaded: Loaded) -> str:
    """The effective configuration with where each value came from, a line each (X-3)."""
    values = dataclasses.asdict(loaded.config)
    width = max(len(setting.key) for setting in SETTINGS)
    return "\n".join(
        f"{setting.key:<{width}}  {json.dumps(values[setting.name])}  ({loaded.sources[setting.name]})"
        for setting in SETTINGS
    )
