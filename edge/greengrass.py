"""The keys of the Greengrass component aws.greengrass.SageMakerEdgeManager, and what they are here. Pure.

A deployment gives every key as text, and unchanged ones with the component's default. Beside the original's keys there are
few: nucleus lite reads recipes of 8 KiB at most. `Settings` takes any other setting, as JSON.

https://docs.aws.amazon.com/greengrass/v2/developerguide/sagemaker-edge-manager-component.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.config import parse_object
from edge.errors import ConfigError
from edge.settings import SETTINGS, Setting, full_key
from edge.text import shown

COMPONENT = "aws.greengrass.SageMakerEdgeManager"
SOCKET_KEY = "UnixSocketName"
SETTINGS_KEY = "Settings"
TRUST_FOLDER = "/etc/sagemaker-edge-agent/trust"


@dataclass(frozen=True)
class Key:
    """A key of the component: its default, and the setting that it stands for, if any."""

    name: str
    default: str
    setting: str | None


def _text(setting: Setting) -> str:
    """A setting's default as a deployment would write it."""
    default = setting.default
    return str(default).lower() if isinstance(default, bool) else str(default)


_BY_NAME = {setting.name: setting for setting in SETTINGS}


def _key(name: str, setting: str, default: str | None = None) -> Key:
    return Key(name, _text(_BY_NAME[setting]) if default is None else default, setting)


_ORIGINAL = (
    _key("DeviceFleetName", "core_device_fleet_name"),
    _key("BucketName", "provider_s3_bucket_name"),
    _key("CaptureDataBatchSize", "core_capture_data_batch_size"),
    _key("CaptureDataBufferSize", "core_capture_data_buffer_size"),
    _key("CaptureDataDestination", "core_capture_data_destination", "Cloud"),
    _key("CaptureDataPushPeriodSeconds", "core_capture_data_push_period_seconds"),
    _key("CaptureDataBase64EmbedLimit", "core_capture_data_base64_embed_limit"),
    _key("CaptureDataPeriodicUpload", "core_capture_data_periodic_upload"),
    _key("CaptureDataPeriodicUploadPeriodSeconds", "core_capture_data_periodic_upload_period_seconds"),
    _key("CaptureDataDiskPath", "core_capture_data_disk_path"),
    _key("FolderPrefix", "core_folder_prefix", "sme-capture"),
    _key("SagemakerEdgeLogVerbose", "log_verbose"),
    Key(SOCKET_KEY, f"/tmp/{COMPONENT}.sock", None),  # noqa: S108 - where its clients look for it
    # Of the cloud service that is gone: taken, and nothing done with them.
    Key("LocalDataRootPath", "", None),
    Key("DbEnable", "false", None),
    Key("DeploymentEnable", "false", None),
    Key("DeploymentPollInterval", "1440", None),
    Key("DLRBackendOptions", "", None),
)
KEYS = (*_ORIGINAL, _key("RootCertsPath", "core_root_certs_path", TRUST_FOLDER), Key(SETTINGS_KEY, "{}", None))


def configuration(given: Mapping[str, str], *, thing: str, region: str, work: str) -> dict[str, Any]:
    """The agent's configuration file out of a component's keys.

    Args:
        given: the keys' values, as text; an empty one is as if it were not there.
        thing: the core device's AWS IoT thing, which is the device's name too.
        region: its AWS region.
        work: the component's work folder, where captures are and wait, and accepted packages are, unless a key says otherwise.

    Raises:
        ConfigError: a key that the component does not have, or Settings that are no JSON object.
    """
    if unknown := given.keys() - {key.name for key in KEYS}:
        raise ConfigError(f"{shown(min(unknown))} is not a key of the component {COMPONENT}")
    values: dict[str, Any] = {"core_device_name": thing, "core_iot_thing_name": thing, "core_region": region}
    for key in KEYS:
        setting, text = _BY_NAME.get(key.setting or ""), given.get(key.name, "").strip() or key.default
        if setting is not None and text != _text(setting):
            values[setting.name] = text
    values.setdefault("core_capture_data_disk_path", f"{work}/capture")
    values["edge_package_store_path"] = f"{work}/packages"
    made = {full_key(name): value for name, value in values.items()}
    made |= parse_object((given.get(SETTINGS_KEY, "").strip() or "{}").encode(), SETTINGS_KEY)
    if made.get(full_key("core_capture_data_destination")) == "Cloud":
        made.setdefault(full_key("edge_spool_path"), f"{work}/spool")
    return made
