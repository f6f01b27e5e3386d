"""The configuration file (docs/configuration.md): every key, all errors at once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import config, config_rules
from edge.config import Config, describe, load_config, parse_config
from edge.errors import ConfigError
from edge.settings import SETTINGS, Kind, full_key

GOOD: dict[str, Any] = {
    "core_device_name": "device-1",
    "core_device_fleet_name": "fleet",
    "core_root_certs_path": "/etc/roots",
    "core_capture_data_disk_path": "/var/captures",
}


UPLOADS: dict[str, Any] = {
    "core_capture_data_periodic_upload": True,
    "core_region": "us-west-2",
    "provider_s3_bucket_name": "sagemaker-b",
}
CLOUD = {**UPLOADS, "core_capture_data_periodic_upload": False, "core_capture_data_destination": "Cloud"}


def parse(**changes: Any) -> Any:
    given = {**GOOD, **changes}
    return parse_config(json.dumps({full_key(k): v for k, v in given.items() if v is not ...}).encode())


def faults(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(**changes)
    return str(refused.value).splitlines()


def test_the_table_and_the_dataclass_say_the_same() -> None:
    assert [setting.name for setting in SETTINGS] == list(Config.__dataclass_fields__)


def test_defaults() -> None:
    config = parse().config
    assert config.core_iot_thing_name == "device-1"
    assert config.provider_provider == "None"
    assert config.core_capture_data_destination == "Disk"
    assert (config.core_capture_data_buffer_size, config.core_capture_data_batch_size) == (30, 10)
    assert (config.core_capture_data_push_period_seconds, config.core_capture_data_base64_embed_limit) == (4, 3072)
    assert config.core_capture_data_periodic_upload is False
    assert config.core_capture_data_periodic_upload_period_seconds == 8
    assert config.edge_spool_path == "/var/captures/.spool"


def test_all_errors_at_once() -> None:
    found = faults(core_device_name=..., core_capture_data_buffer_size=0, core_root_certs_path="$CERTS", log_verbose=3)
    assert len(found) == 4
    assert any("core_device_name: missing" in line for line in found)
    assert any(
        "core_capture_data_buffer_size: 0 is not allowed; expected an integer from 1 to" in line for line in found
    )
    assert any('core_root_certs_path: "$CERTS" is not allowed; expected a path' in line for line in found)
    assert any("log_verbose: 3 is not allowed; expected true or false" in line for line in found)


@pytest.mark.parametrize(("text", "value"), [("8", 8), (" 8 ", 8), ("+8", 8), (8, 8)])
def test_text_that_spells_an_integer(text: object, value: int) -> None:
    assert parse(core_capture_data_push_period_seconds=text).config.core_capture_data_push_period_seconds == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), (True, True)])
def test_text_that_spells_a_boolean(text: object, value: bool) -> None:
    assert parse(log_verbose=text).config.log_verbose is value


@pytest.mark.parametrize("value", ["8.5", "eight", 8.5, True, None, [], {}, "1" * 30, "٨"])
def test_what_is_no_integer(value: object) -> None:
    assert len(faults(core_capture_data_push_period_seconds=value)) == 1


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "ä", "a" * 64, "a/b", "a\n"])
def test_device_names(name: str) -> None:
    assert "core_device_name" in faults(core_device_name=name)[0]


@pytest.mark.parametrize("name", ["a", "A9", "a--__b-c", "a" * 63])
def test_good_device_names(name: str) -> None:
    assert parse(core_device_name=name).config.core_device_name == name


def test_the_old_name_of_the_device() -> None:
    loaded = parse(core_device_name=..., core_device_uuid="old")
    assert loaded.config.core_device_name == "old"
    assert "core_device_uuid" in loaded.sources["core_device_name"]
    both = parse(core_device_uuid="old")
    assert both.config.core_device_name == "device-1"
    assert "core_device_uuid" in both.warnings[0]


def test_unknown_keys_are_reported_and_unused_ones_warn() -> None:
    loaded = parse(core_device_nam="x", telemetry_libsystemd_path="/lib/x.so", log_verbos=True)
    assert len(loaded.warnings) == 3
    assert any("not used by this agent" in w for w in loaded.warnings)
    assert any("did you mean sagemaker_edge_log_verbose?" in w for w in loaded.warnings)


def test_credentials_of_the_service_stand_where_they_can_be_used() -> None:
    credential = "$CREDENTIALS_DIRECTORY/ca.pem"
    assert parse(provider_aws_ca_cert_file=credential).config.provider_aws_ca_cert_file == credential
    found = faults(**UPLOADS, provider_aws_ca_cert_file="$HOME/ca.pem")
    assert "expected a path, or $CREDENTIALS_DIRECTORY/NAME" in found[0]
    assert "expected a path, absolute or" in faults(edge_spool_path="$CREDENTIALS_DIRECTORY/spool")[0]


def test_a_missing_disk_path_is_an_error_for_disk_only() -> None:
    assert "core_capture_data_disk_path: missing" in faults(core_capture_data_disk_path=...)[0]
    cloud = parse(
        core_capture_data_disk_path=...,
        core_capture_data_destination="Cloud",
        core_region="eu-west-1",
        provider_s3_bucket_name="my-sagemaker-bucket",
    )
    assert cloud.config.provider_provider == "Aws"
    assert not cloud.warnings


def test_cloud_needs_a_provider() -> None:
    assert "expected provider Aws" in faults(core_capture_data_destination="Cloud")[0]
    assert "periodic_upload" in faults(core_capture_data_periodic_upload=True)[0]
    assert "core_region: missing" in faults(**UPLOADS | {"core_region": ...})[0]
    assert "Custom" in faults(**UPLOADS, provider_provider="Custom")[0]


def test_a_bucket_of_another_name_only_warns() -> None:
    assert "does not contain 'sagemaker'" in parse(**UPLOADS | {"provider_s3_bucket_name": "captures"}).warnings[0]


def test_iot_settings_come_together() -> None:
    found = faults(**UPLOADS, provider_aws_cert_file="/c.pem")
    assert len(found) == 3
    bad = dict.fromkeys(
        ("provider_aws_ca_cert_file", "provider_aws_cert_file", "provider_aws_cert_pk_file"), "/etc/x.pem"
    )
    found = faults(**UPLOADS, provider_aws_iot_cred_endpoint="https://host/credentials", **bad)
    assert "/role-aliases/ALIAS/credentials" in found[0]


def test_batch_and_buffer() -> None:
    assert "expected less than" in faults(core_capture_data_batch_size=31)[0]
    assert "equals the buffer size" in parse(core_capture_data_batch_size=30).warnings[0]
    assert parse(core_capture_data_buffer_size=5).config.core_capture_data_batch_size == 5


def test_the_spool_is_in_the_first_state_folder_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """[R-6] Where none can be written it is the service's own, which `--check-config` then names."""
    monkeypatch.setenv("STATE_DIRECTORY", f"/one:{tmp_path}")
    monkeypatch.setenv("XDG_STATE_HOME", "/two")
    monkeypatch.setattr(config_rules, "STATE_FOLDER", "/var/lib/agent")
    for usable, spool, source in (
        (("/one", "/var/lib/agent", "/two/agent"), "/one/spool", "STATE_DIRECTORY"),
        (("/var/lib/agent", "/two/agent"), "/var/lib/agent/spool", "default"),
        (("/two/agent",), "/two/agent/spool", "this user cannot write to /var/lib/agent"),
        ((), "/one/spool", "STATE_DIRECTORY"),
    ):
        monkeypatch.setattr(config_rules, "why_unusable", lambda folder, good=usable: "" if folder in good else "no")
        loaded = parse(**CLOUD)
        assert (loaded.config.edge_spool_path, loaded.sources["edge_spool_path"]) == (spool, source)
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(config_rules, "why_unusable", lambda folder: "" if folder.startswith("/home/me") else "no")
    assert parse(**CLOUD).config.edge_spool_path == "/home/me/.local/state/agent/spool"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # no entry in passwd
    monkeypatch.setattr(config_rules, "why_unusable", lambda folder: "no")
    [fault] = faults(**CLOUD)
    assert fault.startswith("edge_spool_path: missing; it is required where this user can write neither to /var/lib/")
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    assert parse(**CLOUD).config.edge_spool_path == "/state/spool"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr(config_rules, "why_unusable", lambda folder: "")
    assert parse(**CLOUD).config.edge_spool_path == "/var/lib/sagemaker-edge-agent/spool"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/tmp"),
        ("HOME", "/var/tmp/me"),
        ("XDG_STATE_HOME", "/tmp/state"),
        ("STATE_DIRECTORY", "/home/../tmp/x"),
    ],
)
def test_captures_never_wait_in_a_temporary_folder(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """[R-6] Another folder than the state folder is to be had, but each is temporary."""
    for variable in ("XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/tmp")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(config_rules, "why_unusable", lambda folder: "no" if folder.startswith("/var/lib") else "")
    [fault] = faults(**CLOUD)
    assert fault.startswith("edge_spool_path: missing") and fault.endswith("a home outside /tmp and /var/tmp")
    assert parse(**CLOUD, edge_spool_path="/data").config.edge_spool_path == "/data"


def test_relative_paths_start_in_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    monkeypatch.chdir(tmp_path / "agent")
    config = parse(
        **UPLOADS,
        core_root_certs_path="./certificates/root",
        core_capture_data_disk_path="../captures",
        provider_aws_ca_cert_file="iot/ca.pem",
        provider_aws_cert_file="./iot/cert.pem",
        provider_aws_cert_pk_file="iot/key.pem",
        provider_aws_iot_cred_endpoint="https://host/role-aliases/alias/credentials",
        edge_delegate_paths=["lib/delegate.so"],
    ).config
    assert config.core_root_certs_path == f"{tmp_path}/agent/certificates/root"
    assert config.core_capture_data_disk_path == f"{tmp_path}/captures"
    assert config.edge_spool_path == f"{tmp_path}/captures/.spool"
    assert config.provider_aws_cert_file == f"{tmp_path}/agent/iot/cert.pem"
    assert config.edge_delegate_paths == (f"{tmp_path}/agent/lib/delegate.so",)


def test_what_nothing_uses_only_warns() -> None:
    placeholders = {
        "provider_aws_iot_cred_endpoint": "<your endpoint>",
        "provider_aws_cert_file": "$CERTIFICATE",
        "core_region": "REGION",
        "provider_s3_bucket_name": "<BUCKET>",
        "provider_provider_path": "~/lib.so",
        "core_capture_data_periodic_upload_period_seconds": "SECONDS",
    }
    loaded = parse(**placeholders, provider_provider="None")
    assert len(loaded.warnings) == len(placeholders)
    assert all("nothing uses it" in text for text in loaded.warnings)
    assert loaded.config.provider_s3_bucket_name == ""
    used = [name for name in placeholders if name != "provider_provider_path"]
    found = faults(**UPLOADS | placeholders)
    assert all(any(name in line for line in found) for name in used)
    assert parse(provider_provider="Custom").warnings
    assert parse(**CLOUD, core_capture_data_disk_path="$DISK").warnings


def test_without_a_provider_captures_stay_on_disk() -> None:
    loaded = parse(provider_provider="None", core_capture_data_destination="Cloud")
    assert loaded.config.core_capture_data_destination == "Disk"
    assert loaded.config.edge_spool_path == "/var/captures/.spool"
    assert "captures are kept in" in loaded.warnings[0]
    periodic = parse(provider_provider="None", core_capture_data_periodic_upload=True)
    assert not periodic.config.core_capture_data_periodic_upload
    (fault,) = faults(provider_provider="None", core_capture_data_destination="Cloud", core_capture_data_disk_path=...)
    assert "expected provider Aws" in fault and "core_capture_data_disk_path" in fault


def test_empty_values_are_as_if_they_were_not_there() -> None:
    names = [setting.name for setting in SETTINGS if not setting.required and setting.name not in GOOD]
    loaded, bare = parse(**dict.fromkeys(names, "")), parse()
    assert (loaded.config, loaded.sources, loaded.warnings) == (bare.config, bare.sources, bare.warnings)
    assert "core_device_name" in faults(core_device_name="")[0]


@pytest.mark.parametrize("prefix", ["a/b", "a/", "a.b/c-d", "my captures/of 2 days", "..a/.b"])
def test_folder_prefixes(prefix: str) -> None:
    assert parse(core_folder_prefix=prefix).config.core_folder_prefix == prefix


@pytest.mark.parametrize("prefix", ["/a", "..", "a/../b", "./a", "a//b", " a", "a ", "a /b", "a\0"])
def test_folder_prefixes_that_would_leave_the_folder(prefix: str) -> None:
    assert "core_folder_prefix" in faults(core_folder_prefix=prefix)[0]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000, b"1" * 5000, b" " * (2 << 20), b'{"a": NaN'],
)
def test_hostile_files(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_config(data)


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; name one that can be read with -c CONFIG"):
        load_config(tmp_path / "none.json")
    monkeypatch.setattr(config, "INSTALLED_CONFIG", str(tmp_path / "none.json"))
    with pytest.raises(
        ConfigError, match="No such file or directory; this is the default; name another with -c CONFIG"
    ):
        load_config(tmp_path / "none.json")


def test_a_file_that_is_no_json_is_named_with_the_likely_cause(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"sagemaker_edge_core_device_name": "d",}')
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert str(refused.value).startswith(f"the configuration file {file} is not JSON: line 1, column ")
    assert "a comma after the last entry" in str(refused.value)


def test_one_fault_is_one_line() -> None:
    for changes in (
        {"core_capture_data_disk_path": "$CAPTURES"},
        {"core_capture_data_destination": "disc"},
        {**UPLOADS, "provider_provider": "aws"},
        {"core_capture_data_buffer_size": 0, "core_capture_data_batch_size": 31},
        {"core_capture_data_destination": "Cloud", "core_region": "r", "provider_s3_bucket_name": "B!"},
    ):
        assert len(faults(**changes)) == 1, changes
    found = faults(**UPLOADS, provider_aws_cert_file="$C")
    assert [fault.split(":")[0] for fault in found] == [  # one is wrong, the three that belong to it are missing
        full_key(name)
        for name in (
            "provider_aws_cert_file",
            "provider_aws_ca_cert_file",
            "provider_aws_cert_pk_file",
            "provider_aws_iot_cred_endpoint",
        )
    ]


def test_a_fault_does_not_hide_the_hint() -> None:
    with pytest.raises(ConfigError) as refused:
        parse(core_device_name=..., core_device_nam="d")
    assert "did you mean sagemaker_edge_core_device_name?" in refused.value.warnings[0]


def test_the_original_providers_library_warns() -> None:
    assert "provider_provider_path is not used" in parse(provider_provider_path="/lib/provider.so").warnings[0]


def test_describe_cuts_nothing() -> None:
    path = "/captures/" + "x" * 200
    assert f'"{path}"' in describe(parse(core_capture_data_disk_path=path))


def test_describe_says_where_each_value_came_from() -> None:
    text = describe(parse(log_verbose="true"))
    assert len(text.splitlines()) == len(SETTINGS)
    assert any("log_verbose" in line and line.endswith("true  (file)") for line in text.splitlines())
    assert any("buffer_size" in line and line.endswith("30  (default)") for line in text.splitlines())


def test_own_keys_have_their_own_prefix() -> None:
    assert parse(edge_queue_calls=5).config.edge_queue_calls == 5
    assert "edge_queue_calls: -1 is not allowed" in faults(edge_queue_calls=-1)[0]


def test_every_setting_is_explained() -> None:
    for setting in SETTINGS:
        assert setting.help.endswith(".")
        if setting.kind is Kind.INT:
            assert isinstance(setting.default, int) and setting.low <= setting.default <= setting.high


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_arbitrary_bytes(data: bytes) -> None:
    try:
        parse_config(data)
    except ConfigError as error:
        assert str(error)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([setting.name for setting in SETTINGS]), _JSON, max_size=8))
@settings(max_examples=300)
def test_arbitrary_values(changes: dict[str, Any]) -> None:
    try:
        parse(**changes)
    except ConfigError as error:
        assert str(error)
