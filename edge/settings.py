"""The table of settings: the file's keys, their types, defaults, ranges, units and a line of help each.

`edge.config` reads the file by it; the manual page and the table in docs/ are generated from it.
"""

from edge.setting import PREFIX, Kind, Setting, full_key

__all__ = [
    "LISTEN_TLS",
    "OLD_NAMES",
    "PREFIX",
    "PRINCIPAL_PATTERN",
    "SETTINGS",
    "UNUSED",
    "Kind",
    "Setting",
    "full_key",
]

NAME_PATTERN = r"[a-zA-Z0-9](-*_*[a-zA-Z0-9])*"
LISTEN_TLS = ("edge_listen_cert_file", "edge_listen_key_file", "edge_listen_client_ca_file")
_PORT = r"(?!0)([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
PRINCIPAL_PATTERN = r"(user|group):[^:\s/][^:\s]*"
_PREFIX_PART = r"(?!\.{1,2}(/|\Z)|[^/]* (/|\Z))[a-zA-Z0-9!_.*'()-][a-zA-Z0-9!_.*'() -]*"
_NAME_TEXT = "1 to 63 letters, digits, '-' and '_', beginning and ending with a letter or digit"


def _name(name: str, help: str, required: bool = False) -> Setting:
    return Setting(name, Kind.TEXT, help, required=required, high=63, pattern=NAME_PATTERN, pattern_text=_NAME_TEXT)


def _int(name: str, default: int, low: int, high: int, help: str) -> Setting:
    return Setting(name, Kind.INT, help, default=default, low=low, high=high)


def _path(name: str, help: str, required: bool = False) -> Setting:
    return Setting(name, Kind.PATH, help, required=required)


def _credential(name: str, help: str) -> Setting:
    return Setting(name, Kind.CREDENTIAL, help)


SETTINGS: tuple[Setting, ...] = (
    _name("core_device_name", "Name of this device.", required=True),
    _name("core_device_fleet_name", "Name of the fleet that the device belongs to.", required=True),
    Setting(
        "core_iot_thing_name",
        Kind.TEXT,
        "AWS IoT thing that credentials are requested for. Default: the device name.",
        high=128,
        pattern=r"[a-zA-Z0-9:_-]+",
        pattern_text="1 to 128 letters, digits, ':', '_' and '-'",
    ),
    Setting(
        "core_region",
        Kind.TEXT,
        "AWS region; required with provider Aws.",
        high=63,
        pattern=r"[a-z0-9-]+",
        pattern_text="a region name such as us-west-2",
    ),
    _path(
        "core_root_certs_path", "Directory of the trusted signing roots (*.pem, mode 0444 or tighter).", required=True
    ),
    Setting("core_endpoint_override", Kind.URL, "Another S3-compatible endpoint; buckets are then addressed by path."),
    Setting(
        "provider_provider",
        Kind.CHOICE,
        "Cloud provider. Default: Aws if a bucket is set, else None.",
        choices=("Aws", "None", "Custom"),
    ),
    _path("provider_provider_path", "Shared object of the original agent's provider; accepted and ignored."),
    _credential("provider_aws_ca_cert_file", "CA certificate of the IoT credentials endpoint."),
    _credential("provider_aws_cert_file", "Certificate of this device."),
    _credential(
        "provider_aws_cert_pk_file", "Private key of this device, which nobody else may use: mode 0400 or 0600."
    ),
    Setting(
        "provider_aws_iot_cred_endpoint",
        Kind.URL,
        "IoT credentials endpoint: https://HOST/role-aliases/ALIAS/credentials.",
    ),
    Setting(
        "provider_s3_bucket_name",
        Kind.TEXT,
        "Bucket that captures are uploaded to.",
        high=63,
        pattern=r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        pattern_text="a bucket name: 3 to 63 lower-case letters, digits, '.' and '-'",
    ),
    Setting(
        "core_folder_prefix",
        Kind.TEXT,
        "First part of object keys, and sub-folder of the capture folder.",
        high=512,
        pattern=rf"{_PREFIX_PART}(/{_PREFIX_PART})*/?",
        pattern_text="letters, digits, spaces within and !_.*'()- in parts separated by '/', no part '.' or '..'",
    ),
    Setting(
        "core_capture_data_destination",
        Kind.CHOICE,
        "Where captures go.",
        default="Disk",
        choices=("Disk", "Cloud"),
        required=False,
    ),
    _path("core_capture_data_disk_path", "Folder of the captures; required with destination Disk."),
    _int("core_capture_data_buffer_size", 30, 1, 100_000, "Captures that may wait to be written, in requests."),
    _int(
        "core_capture_data_batch_size",
        10,
        1,
        100_000,
        "Captures written together, in requests; less than the buffer size.",
    ),
    _int(
        "core_capture_data_push_period_seconds",
        4,
        1,
        86_400,
        "Longest time until waiting captures are written, in seconds.",
    ),
    _int(
        "core_capture_data_base64_embed_limit",
        3072,
        0,
        3072,
        "Largest tensor embedded in its record, in bytes; larger ones get a file.",
    ),
    Setting("core_capture_data_periodic_upload", Kind.BOOL, "Upload what was captured to Disk.", default=False),
    _int("core_capture_data_periodic_upload_period_seconds", 8, 1, 86_400, "Time between uploads, in seconds."),
    Setting("log_verbose", Kind.BOOL, "Log debug events too.", default=False),
    Setting(
        "edge_log_stream",
        Kind.CHOICE,
        "Where the log goes. Default: stderr; stdout if the program is called sagemaker_edge_agent_binary and systemd did not start it.",
        choices=("stderr", "stdout"),
    ),
    _int(
        "edge_model_instances",
        1,
        1,
        64,
        "Instances of a model, which run at the same time, unless its manifest says otherwise.",
    ),
    _int(
        "edge_model_threads",
        0,
        0,
        64,
        "Threads of each instance, unless its manifest says otherwise. 0: all cores but one, divided by the instances, 1 to 4.",
    ),
    _int("edge_queue_calls", 16, 0, 1024, "Predict calls that may wait for a model."),
    _int(
        "edge_inference_stuck_seconds",
        60,
        1,
        86_400,
        "An inference running longer than this is ended; where it cannot be, the watchdog restarts the agent. In seconds.",
    ),
    _int(
        "edge_memory_budget_mib",
        0,
        0,
        1 << 20,
        "Memory for models, in MiB. 0: what the system and the control group have.",
    ),
    Setting(
        "edge_strict_tensors",
        Kind.BOOL,
        "Refuse tensors whose declaration does not match their bytes, even if the bytes fit the model (P-2).",
        default=False,
    ),
    _path(
        "edge_models_path",
        "Folder of the declared models, a file ALIAS.json for each. Default: models.d beside the configuration file.",
    ),
    _path(
        "edge_package_store_path",
        "Folder of the packages of declared models. Default: packages in the first state folder that the user can write to: $STATE_DIRECTORY, /var/lib/sagemaker-edge-agent, $XDG_STATE_HOME/sagemaker-edge-agent (~/.local/state if unset).",
    ),
    _int("edge_package_store_max_mib", 4096, 1, 1 << 24, "Disk space for the packages of declared models, in MiB."),
    Setting(
        "edge_models_strict",
        Kind.BOOL,
        "Answer even the first LoadModel of a declared or restored model with ALREADY_EXISTS (M-9).",
        default=False,
    ),
    Setting(
        "edge_fleet_repository",
        Kind.TEXT,
        "The fleet's repository of models: an http(s):// URL, s3://BUCKET/PREFIX with the credentials of uploads, a folder or a file:// URL. Needs edge_fleet_root. Default: none.",
        high=2048,
        pattern=r"(https?://[^\s/?#@]+(/[^\s?#]*)?|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?|file:///[^\s?#]*|/.*)",
        pattern_text="https://HOST/PATH, s3://BUCKET/PREFIX, file:///PATH or /PATH",
    ),
    _path(
        "edge_fleet_root",
        "File with the fleet's root of trust, the repository's 1.root.json; it also allows `fleet apply --from` to take models from a USB stick.",
    ),
    _int("edge_fleet_poll_seconds", 3600, 1, 604_800, "Time between polls of the fleet's repository, in seconds."),
    Setting(
        "edge_fleet_reports",
        Kind.TEXT,
        "Where reports of deployments and heartbeats are sent: bucket, the bucket of the captures, or a folder. Default: nowhere.",
        high=2048,
        pattern=r"(bucket|file:///[^\s?#]*|/.*)",
        pattern_text="bucket, file:///PATH or /PATH",
    ),
    _int("edge_fleet_heartbeat_seconds", 86_400, 1, 2_592_000, "Time between heartbeats, in seconds."),
    _path(
        "edge_fleet_path",
        "Folder of the models and metadata that came from the fleet. Default: fleet in the first state folder that the user can write to: $STATE_DIRECTORY, /var/lib/sagemaker-edge-agent, $XDG_STATE_HOME/sagemaker-edge-agent (~/.local/state if unset).",
    ),
    Setting("edge_delegate_paths", Kind.PATHS, "Delegate libraries that a manifest may name.", default=()),
    _path(
        "edge_spool_path",
        "Folder of waiting captures. Default: in the capture folder, else in the first state folder that the user can write to: $STATE_DIRECTORY, /var/lib/sagemaker-edge-agent, $XDG_STATE_HOME/sagemaker-edge-agent (~/.local/state if unset).",
    ),
    _int("edge_spool_max_mib", 1024, 1, 1 << 24, "Disk space for waiting captures, in MiB."),
    _int("edge_spool_max_files", 100_000, 10, 10_000_000, "Number of files of waiting captures."),
    _int("edge_spool_min_free_mib", 64, 0, 1 << 24, "Disk space that captures must leave free, in MiB."),
    Setting(
        "edge_spool_full_policy",
        Kind.CHOICE,
        "When the spool is full: refuse new captures, or drop the oldest waiting ones.",
        default="refuse",
        choices=("refuse", "drop-oldest"),
    ),
    _int(
        "edge_capture_records_per_file",
        0,
        0,
        100_000,
        "Captures in a record file at most; 1 for readers that take a file as one JSON object. 0: as many as a batch has.",
    ),
    Setting(
        "edge_capture_compress",
        Kind.CHOICE,
        "Compression of record files: none, or gzip, whose file names end in .jsonl.gz (R-18).",
        default="none",
        choices=("none", "gzip"),
    ),
    Setting(
        "edge_capture_policies",
        Kind.POLICIES,
        "Which calls are captured without a CaptureData: an object of policies by alias, '*' for all others. See docs/spec/capture-policies.md.",
        default={},
    ),
    _int(
        "edge_capture_summary_seconds",
        0,
        0,
        86_400,
        "Time between summaries of each model, in seconds, such as 3600; they are files summary-*.jsonl beside its captures. 0: no summaries.",
    ),
    _int("edge_capture_buffer_mib", 64, 1, 4096, "Captures that may wait to be written, in MiB."),
    Setting(
        "edge_engine",
        Kind.CHOICE,
        "What runs models: litert, LiteRT with the TFLite interpreter for models that LiteRT does not take; tflite, the interpreter alone; auto, litert if its library is installed.",
        default="auto",
        choices=("auto", "litert", "tflite"),
    ),
    Setting(
        "edge_accelerators",
        Kind.TEXT,
        "Processors that packages may ask for; gpu needs sagemaker-edge-agent-gpu to be installed.",
        default="cpu,gpu",
        high=7,
        pattern=r"cpu(,gpu)?",
        pattern_text='"cpu" or "cpu,gpu"',
    ),
    Setting(
        "edge_listen",
        Kind.TEXT,
        "Also serve on this address over TCP: a loopback address, which every user of the machine can use, or, with edge_listen_cert_file, edge_listen_key_file and edge_listen_client_ca_file, any address, for clients with a certificate. Shared memory is refused while a TCP client is connected. Default: only the Unix socket.",
        high=64,
        pattern=rf"(([0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}|\[[0-9a-fA-F:.]+\]):{_PORT}",
        pattern_text="127.0.0.1:PORT or [::1]:PORT, or with TLS the number of another address, with a port from 1 to 65535",
    ),
    _credential("edge_listen_cert_file", "Certificate chain of this device for edge_listen, in PEM form."),
    _credential(
        "edge_listen_key_file", "Private key of that certificate, which nobody else may use: mode 0400 or 0600."
    ),
    _credential("edge_listen_client_ca_file", "CAs, in PEM form, whose client certificates edge_listen accepts."),
    Setting(
        "edge_admins",
        Kind.PRINCIPALS,
        "Who may load, unload and replace models, besides root and the agent's user: they use SOCKET.admin/agent.sock, and everybody else gets PERMISSION_DENIED (X-15). Default: whoever may use the socket.",
        default=(),
    ),
    Setting(
        "edge_metrics_listen",
        Kind.TEXT,
        "Where metrics are served over HTTP, at /metrics: a loopback address, for every user of the machine, or the absolute path of a Unix socket, for the agent's user and group. Default: nowhere.",
        high=107,
        pattern=rf"(127\.0\.0\.1|\[::1\]):{_PORT}|/.+",
        pattern_text="127.0.0.1:PORT or [::1]:PORT with a port from 1 to 65535, or the absolute path of a Unix socket, at most 107 characters",
    ),
    Setting(
        "edge_metrics_textfile",
        Kind.TEXT,
        "File that metrics are written to every 15 seconds, for the textfile collector of node_exporter: an absolute path ending in .prom. Default: none.",
        high=4096,
        pattern=r"/(.*/)?[^/]+\.prom",
        pattern_text="an absolute path that ends in .prom",
    ),
    Setting(
        "edge_rpc_server",
        Kind.CHOICE,
        "How calls are served: core, the agent's own loop, which is faster, or grpc, the server of the gRPC library.",
        default="core",
        choices=("core", "grpc"),
    ),
    Setting(
        "edge_upload_verify",
        Kind.CHOICE,
        "When an upload counts as stored: after the store's answer, or after a HEAD request besides (needs s3:GetObject).",
        default="answer",
        choices=("answer", "head"),
    ),
    _credential(
        "edge_ca_bundle",
        "CA certificates, in PEM form, that are trusted besides those of the system: a private store's, or an inspecting firewall's.",
    ),
    _int(
        "edge_receive_max_mib",
        64,
        1,
        1 << 20,
        "Incomplete messages of all clients together, in MiB; at least one of the largest size fits.",
    ),
    _int(
        "edge_requests_max_mib",
        32,
        1,
        1 << 20,
        "Requests being answered or waiting to be, all together, in MiB; at least one fits.",
    ),
    _int("edge_upload_connections", 4, 1, 16, "Objects that are uploaded at the same time."),
    _int(
        "edge_upload_max_kib_per_second",
        0,
        0,
        1 << 22,
        "Bandwidth of uploads and of packages that come from the fleet, in KiB a second. 0: no limit.",
    ),
)

OLD_NAMES: dict[str, tuple[str, ...]] = {"core_device_name": ("core_device_uuid",)}

# Keys of the original agent that mean nothing here.
UNUSED = frozenset(
    {
        "telemetry_libsystemd_path",
        "db_module_path",
        "local_data_root_path",
        "deployment_lib_path",
        "model_deployment_poll_interval",
        "dlr_backend_options",
    }
)
