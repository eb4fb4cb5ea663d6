"""
Shapes of calls → attributes, with marks where calls of one shape differ.

What a span and a log record of a call have in common.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from otel_sysexit import attributes as names
from otel_sysexit.addresses import Family
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.calls import Outcome
from otel_sysexit.identity import Value
from otel_sysexit.otlp.resources import key_value
from otel_sysexit.otlp.shapes import Shape, Text
from otel_sysexit.otlp.stamp import LENGTH_WIDTH, VARINT_WIDTH, Block, Mark, marked_number
from otel_sysexit.otlp.stamps import TextField
from otel_sysexit.syscalls import Kind, errno_name

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

TID_WIDTH: Final = 5
PORT_WIDTH: Final = 3
_CALLS_WITH_OWN_ADDRESS: Final = frozenset({"bind", "getsockname"})
_HAS_VALUE: Final = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.BENIGN)
BEGINNING: Final = "beginning"
"""The column that `Beginning` is."""


class Beginning:
    """
    What the messages of all calls begin with: their length, ids and times, the thread, and the result.

    It is a `spans` field of a ScopeSpans, or a `log_records` field of a ScopeLogs, which have the same number.
    """

    def __init__(
        self,
        fields: Sequence[tuple["Message", str, int]],
        with_attribute: Callable[..., "Message"],
        selection: AttributeSelection,
    ) -> None:
        """
        Serialize them.

        Args:
            fields: Messages with one field each, whose last bytes, so many, are a column's.
            with_attribute: Makes a message with one attribute, of its name and value.
            selection: Which attributes are wanted.
        """
        leads = list(fields)
        if selection.has(names.THREAD_ID):
            leads.append((with_attribute(names.THREAD_ID, marked_number(TID_WIDTH)), "tid", TID_WIDTH))
        self._has_value = selection.has(names.SYSCALL_RETURN_VALUE)
        if self._has_value:
            value = with_attribute(names.SYSCALL_RETURN_VALUE, marked_number(VARINT_WIDTH))
            leads.append((value, "ret", VARINT_WIDTH))
        parts: list[bytes | tuple[str, int]] = [b"\x12", ("length", LENGTH_WIDTH)]
        for message, column, width in leads:
            parts += [message.SerializeToString()[:-width], (column, width)]
        self.block = Block(parts)
        self._value_bytes = leads[-1][0].ByteSize() if self._has_value else 0

    def of(self, shape: Shape) -> bytes:
        """Return that of the calls of *shape*, to be written over: without a result if they have none."""
        end = 0 if shape.outcome in _HAS_VALUE else self._value_bytes
        return self.block.skeleton[: len(self.block.skeleton) - end]


class Template:
    """The attributes of the calls of one shape, by column what of them is to be written over, and by slot those that are texts."""

    def __init__(self, selection: AttributeSelection) -> None:
        """Have none; those that *selection* has not will not be added."""
        self.attributes: list[KeyValue] = []
        self.marks: dict[str, Mark] = {}
        self.texts: dict[str, TextField] = {}
        self._selection = selection

    def add(self, key: str, value: Value, column: str = "", width: int = 0) -> None:
        """Add an attribute; the last *width* bytes of it are the *column*'s, if there is one."""
        if not self._selection.has(key):
            return
        attribute = key_value(key, value)
        self.attributes.append(attribute)
        if column:
            self.marks[column] = Mark(attribute.SerializeToString(), width)

    def add_number(self, key: str, column: str, width: int = VARINT_WIDTH) -> None:
        """Add an attribute whose number is the *column*'s, a varint of *width* bytes."""
        self.add(key, marked_number(width), column, width)

    def add_double(self, key: str, column: str) -> None:
        """Add an attribute whose 64-bit floating-point number is the *column*'s."""
        self.add(key, 0.5, column, 8)

    def add_text(self, key: str, slot: str) -> None:
        """Add an attribute whose text is the *slot*'s."""
        if self._selection.has(key):
            self.texts[slot] = TextField(key)


def make_template(
    shape: Shape, kind: Kind, argument_texts: tuple[str | None, ...], selection: AttributeSelection
) -> Template:
    """
    Return the attributes of the calls of *shape*.

    Args:
        shape: What they have in common.
        kind: What its `kind` stands for.
        argument_texts: What its `argument_text` stands for: by argument the words for its value; None: there are none.
        selection: Which attributes are wanted.
    """
    template = Template(selection)
    template.add(names.SYSCALL_NAME, kind.name)
    template.add(names.SYSCALL_NUMBER, kind.number)
    template.add(names.SYSCALL_ABI, kind.abi.label)
    template.add_text(names.THREAD_NAME, "thread_name")
    if shape.threshold_length:
        template.add_double(names.SAMPLING_PROBABILITY, "probability")
    _add_constants(shape, kind, template)
    _add_arguments(shape, kind, argument_texts, template)
    _add_address(shape, kind, template)
    return template


def _add_constants(shape: Shape, kind: Kind, template: Template) -> None:
    """Add what all calls of *shape* share, for those that did not plainly succeed."""
    if shape.errno:
        template.add(names.SYSCALL_ERRNO, shape.errno)
    if shape.outcome == Outcome.FAILED:
        template.add(names.ERROR_TYPE, errno_name(shape.errno))
    if shape.outcome == Outcome.INTERRUPTED:
        template.add(names.SYSCALL_INTERRUPTED, value=True)
    if kind.restarts:
        template.add(names.SYSCALL_RESTARTS, kind.restarts)
    if not shape.is_executed:
        template.add(names.SYSCALL_EXECUTED, value=False)
    if shape.is_cut:
        template.add(names.SYSCALL_TRUNCATED, value=True)
    if shape.family == Family.UNIX:
        template.add(names.NETWORK_TRANSPORT, "unix")
    elif shape.family:
        template.add(names.NETWORK_TYPE, "ipv4" if shape.family == Family.IPV4 else "ipv6")


def _add_arguments(shape: Shape, kind: Kind, texts: tuple[str | None, ...], template: Template) -> None:
    """Add `file.path` and the arguments: by *texts* where there is one, paths as text where they were read, else as numbers."""
    paths = [argument for argument in kind.arguments if argument.is_path]
    # A path that is empty means the descriptor (AT_EMPTY_PATH); one that could not be read may mean anything.
    is_path_empty = shape.first_path == Text.EMPTY
    is_file_by_descriptor = shape.first_file == Text.ABSOLUTE and (is_path_empty or not paths)
    if shape.first_path and not is_file_by_descriptor:
        template.add_text(names.FILE_PATH, "path0")
    if shape.second_path:
        template.add_text(names.SYSCALL_ARGUMENT + paths[1].name, "path1")
    files = (shape.first_file, shape.second_file)
    for index, (file, argument) in enumerate(zip(files, kind.descriptors, strict=False)):
        if index == 0 and is_file_by_descriptor:
            template.add_text(names.FILE_PATH, "file0")
        elif file:
            template.add_text(names.SYSCALL_DESCRIPTOR + argument.name, f"file{index}")
    if not shape.has_args:
        return
    as_path = paths[: shape.first_path > 0] + (paths[1:2] if shape.second_path else [])
    for index, (argument, text) in enumerate(zip(kind.arguments, texts, strict=False)):
        if text is not None:
            template.add(names.SYSCALL_ARGUMENT + argument.name, text)
        elif argument not in as_path:
            template.add_number(names.SYSCALL_ARGUMENT + argument.name, f"arg{index}")


def _add_address(shape: Shape, kind: Kind, template: Template) -> None:
    """Add the socket address: the caller's own one or that of the other end."""
    if not shape.family:
        return
    is_local = kind.name in _CALLS_WITH_OWN_ADDRESS
    key = names.NETWORK_LOCAL_ADDRESS if is_local else names.NETWORK_PEER_ADDRESS
    template.add_text(key, "address")
    if shape.family != Family.UNIX:
        template.add_number(
            names.NETWORK_LOCAL_PORT if is_local else names.NETWORK_PEER_PORT, "port", PORT_WIDTH
        )
