"""`greengrass`: writes the agent's configuration file out of the keys of the Greengrass component."""

import argparse
import json
import os

from edge import durable
from edge.client.outcome import Exit, InputError
from edge.config import parse_config
from edge.errors import ConfigError
from edge.greengrass import configuration

THING, REGION = "AWS_IOT_THING_NAME", "AWS_REGION"  # that Greengrass sets for every component


def greengrass(options: argparse.Namespace) -> Exit:
    """Writes WORK/config.json; a key that is not allowed is an error, as in any configuration."""
    given = dict(word.partition("=")[::2] for word in options.keys)
    if wrong := [word for word in options.keys if "=" not in word]:
        raise InputError(f"{wrong[0]!r} is not KEY=VALUE")
    target = options.work / "config.json"
    try:
        values = configuration(
            given,
            thing=options.thing or os.environ.get(THING, ""),
            region=os.environ.get(REGION, ""),
            work=str(options.work.absolute()),
        )
        data = json.dumps(values, indent=2).encode() + b"\n"
        parse_config(data, "the component's configuration")
        durable.write_file(target, data)
    except ConfigError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}") from None
    print(json.dumps({"configuration": str(target)}) if options.json else target)
    return Exit.OK
