"""The messages of an application in the field, from `field.proto` in one of its forms, apart from the agent's own."""

import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

FORMS = ("string", "bytes", "2022")
_DEFINITION = Path(__file__).with_name("field.proto")


def definition(form: str) -> str:
    """The text of a release's definition: `name` as string or as bytes, or with what the 2022 release added."""
    text = _DEFINITION.read_text().replace("NAME_TYPE name", f"{'bytes' if form == 'bytes' else 'string'} name")
    if form == "2022":
        text = text.replace("// 2022: ", "").replace("AuxilaryData", "AuxiliaryData")
    return text


@cache
def messages(form: str) -> Any:
    """Its message classes by name. They are in a pool of their own: two definitions of one name do not go together."""
    with tempfile.TemporaryDirectory() as folder:
        source, described = Path(folder, "field.proto"), Path(folder, "described")
        source.write_text(definition(form))
        assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={described}", str(source)]) == 0
        [file] = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return SimpleNamespace(**{name: message_factory.GetMessageClass(one) for name, one in found.items()})
