"""The store that the configuration asks for."""

import logging
import os
from urllib.parse import urlsplit

from edge.access import credential_path
from edge.clock import Clock
from edge.cloud.aws.client import S3Location
from edge.cloud.aws.credentials import (
    CONTAINER_URI,
    ContainerCredentials,
    CredentialSource,
    EnvironmentCredentials,
    IotCredentials,
    IotSettings,
)
from edge.cloud.aws.proxy import is_loopback
from edge.cloud.aws.reading import S3Reader
from edge.cloud.aws.s3 import S3Store
from edge.cloud.aws.trust import public_trust
from edge.cloud.store import ObjectStore
from edge.config import Config

log = logging.getLogger(__name__)


def build_store(config: Config, clock: Clock) -> ObjectStore | None:
    """The store that the configuration names; None with provider None."""
    if config.provider_provider != "Aws":
        return None
    return _s3(config, clock)


def _s3(config: Config, clock: Clock) -> S3Store:
    """The bucket that the configuration names, with IoT credentials where they are configured."""
    endpoint = config.core_endpoint_override
    if urlsplit(endpoint).scheme == "http" and not is_loopback(urlsplit(endpoint).hostname or ""):
        log.warning("captures go to %s unencrypted: anyone on the way can read them", endpoint)
    return S3Store(
        S3Location(
            config.provider_s3_bucket_name, config.core_region, endpoint, verify=config.edge_upload_verify == "head"
        ),
        credentials_of(config, clock),
        clock,
        lambda: public_trust(*map(credential_path, (config.provider_aws_ca_cert_file, config.edge_ca_bundle))),
    )


def credentials_of(config: Config, clock: Clock) -> CredentialSource:
    """The source of credentials: the AWS IoT certificate, a container's address, or the environment."""
    if not config.provider_aws_iot_cred_endpoint:
        return _surrounding(clock)
    settings = IotSettings(
        endpoint=config.provider_aws_iot_cred_endpoint,
        ca_file=credential_path(config.provider_aws_ca_cert_file),
        certificate_file=credential_path(config.provider_aws_cert_file),
        key_file=credential_path(config.provider_aws_cert_pk_file),
        thing_name=config.core_iot_thing_name,
    )
    return IotCredentials(settings, clock)


def build_reader(bucket: str, clock: Clock, *, config: Config | None, region: str, endpoint: str) -> S3Reader:
    """A reader of a bucket: as the configuration has it, where one is given, with what is given beside it before that."""
    files: tuple[str, ...] = ()
    credentials: CredentialSource
    if config is not None:
        region, endpoint = region or config.core_region, endpoint or config.core_endpoint_override
        files = tuple(map(credential_path, (config.provider_aws_ca_cert_file, config.edge_ca_bundle)))
        credentials = credentials_of(config, clock)
    else:
        credentials = _surrounding(clock)
    return S3Reader(S3Location(bucket, region, endpoint), credentials, clock, lambda: public_trust(*files))


def build_bucket(bucket: str, clock: Clock, *, region: str, endpoint: str) -> tuple[S3Store, S3Reader]:
    """A bucket to change, and to read, without an agent's configuration."""
    location, credentials = S3Location(bucket, region, endpoint), _surrounding(clock)
    return S3Store(location, credentials, clock, public_trust), S3Reader(location, credentials, clock, public_trust)


def _surrounding(clock: Clock) -> CredentialSource:
    """Credentials from the process's surroundings: a container's address, or the environment."""
    if os.environ.get(CONTAINER_URI) and not os.environ.get("AWS_ACCESS_KEY_ID"):
        return ContainerCredentials(clock)
    return EnvironmentCredentials()
