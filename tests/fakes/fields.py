"""Protobuf fields by hand, for messages that no library would send."""


def sized(number: int, data: bytes) -> bytes:
    """A field that has a length: a message, a text, bytes or a list."""
    size, head = len(data), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*head, size)) + data
