"""Reads an optimised HLO program, as XLA prints it: operations, FLOPs, bytes, collectives, memory.

Everything is of one device and one run of the program; the bodies of loops count as often as they
run, each branch of a condition once.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r" +(ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_FREE = (  # moves no bytes
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "partition-id", "replica-id", "domain", "add-dependency"),
)
_SLICES = ("dynamic-slice", "slice", "gather")  # they read a part of their first operand
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # {in place: the operand that is written}
_OPERATIONS = ("ops", "nn")  # the rooms whose functions are called from everywhere
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast")  # of libtpu


@dataclass(frozen=True)
class Instruction:
    """A line of the program; `shape` is that of its result, `rest` what follows the operands."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    rest: str
    is_root: bool

    def find(self, pattern: str) -> str:
        """Returns the first group of a pattern in the attributes, or ""."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""

    @property
    def calls(self) -> tuple[str, ...]:
        """The computations that it runs once; not those that it applies to elements."""
        if self.opcode == "while" or self.opcode.removesuffix("-start") in COLLECTIVES:
            return ()
        keys = r"(?:calls|(?:true|false)_computation"
        keys += r"|to_apply)" if self.opcode == "call" else ")"
        branches = self.find(r"branch_computations=\{([^}]*)\}")
        named = re.findall(rf"{keys}=%?([\w.\-]+)", self.rest)
        return (*named, *_NAME.findall(branches))


@dataclass(frozen=True)
class Operation:
    """An operation of the schedule that does work, alone or as one fusion.

    Attributes:
      name: in the program.
      kind: its opcode; of a fusion, that of its product of matrices, gather, scatter or sort.
      shape: of its result, without the layout.
      times: how often it runs.
      flops: {type of the factors, such as "bf16", "f32" or "f32 highest": FLOPs}, all runs.
      bytes: to and from the device's main memory, all runs.
      path: the functions that it comes from, as JAX names them, or the argument that it copies.
      place: file and line in the source.
    """

    name: str
    kind: str
    shape: str
    times: int
    flops: Mapping[str, int]
    bytes: int
    path: str
    place: str


@dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
      kind: one of `COLLECTIVES`.
      bytes: of the whole arrays on one device, before or after it, whichever is more; of one run.
      times: how often it runs.
      group: the number of devices that exchange with one another; 0 is all.
      shape: of its result.
      path: as in `Operation`.
      place: as in `Operation`.
    """

    kind: str
    bytes: int
    times: int
    group: int
    shape: str
    path: str
    place: str


@dataclass
class Program:
    """What one run of the program does on one device."""

    operations: list[Operation] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)

    @property
    def flops(self) -> Counter[str]:
        """{type of the factors: FLOPs of convolutions and products of matrices}."""
        return sum((Counter(each.flops) for each in self.operations), Counter())

    @property
    def bytes(self) -> int:
        """Bytes to and from the device's main memory."""
        return sum(each.bytes for each in self.operations)


def read(text: str) -> Program:
    """Reads a scheduled program: `Compiled.as_text()`, or what XLA dumps."""
    return _Reader(text).read()


def memory(text: str) -> dict[str, int]:
    """Reads the bytes of a device's main memory by use from XLA's printed buffer assignment.

    "arguments" are those that stay, "donated" those whose place a result takes, "outputs" the other
    results.
    """
    found: Counter[str] = Counter()
    for size, about in re.findall(r"^allocation \d+: size (\d+),? ?(.*)$", text, re.MULTILINE):
        if "thread-local" in about or re.search(r"color [1-9]", about):
            continue  # of a fusion, or in another memory
        is_output = "live-out" in about
        if "parameter" in about:
            found["donated" if is_output else "arguments"] += int(size)
        elif "constant" in about:
            found["constants"] += int(size)
        else:
            found["outputs" if is_output else "temporaries"] += int(size)
    return dict(found)


def array_bytes(shape: str) -> int:
    """Counts the bytes of the arrays in a printed shape, "(f32[8,128]{1,0:T(8,128)}, pred[])"."""
    return sum(
        _ITEM_BYTES.get(kind, 0) * math.prod(_numbers(dims))
        for kind, dims, _ in _ARRAY.findall(shape)
    )


def stored_bytes(shape: str) -> int:
    """Counts the bytes that arrays take in main memory, by their printed layouts.

    TPUs store tiles: T(8,128) fills the two innermost axes up to multiples of 8 and 128. What lies
    in the chip's small fast memory, S(1), takes none.
    """
    total = 0
    for kind, dims, layout in _ARRAY.findall(shape):
        if re.search(r"S\([1-9]\)", layout):
            continue
        order = re.match(r"\{([\d,]*)", layout)
        sizes = _numbers(dims)
        if order and len(sizes) == len(_numbers(order[1])):
            sizes = [sizes[axis] for axis in _numbers(order[1])]  # the innermost first
        tile = re.search(r":T\(([\d,]+)\)", layout)
        for axis, count in enumerate(reversed(_numbers(tile[1]) if tile else [])):
            if axis < len(sizes):
                sizes[axis] = -(-sizes[axis] // count) * count
        total += _ITEM_BYTES.get(kind, 0) * math.prod(sizes)
    return total


class _Reader:
    def __init__(self, text: str):
        self.computations, self.entry = _parse(text)
        self.places = _places(text)
        self.program = Program()
        self.channels: dict[str, str] = {}
        self.made_by = {each.name: each for body in self.computations.values() for each in body}

    def read(self) -> Program:
        self._walk(self.entry, 1)
        return self.program

    def _walk(self, computation: str, times: int) -> None:
        """Adds the operations of a computation that is run, not fused."""
        shapes = self._shapes(computation)
        for line in self.computations[computation]:
            self._add_collectives(line, shapes, times)
            if line.opcode == "while":
                self._walk(line.find(r"body=%?([\w.\-]+)"), times * self._trips(line))
            elif line.opcode in ("call", "conditional", "async-start"):
                for name in line.calls:
                    self._walk(name, times)
            elif line.opcode in _FREE or line.opcode.endswith("-done"):
                continue
            elif line.find(r'custom_call_target="([^"]*)"') not in _FREE_CALLS:
                self._add_operation(line, shapes, times)

    def _add_operation(self, line: Instruction, shapes: Mapping[str, str], times: int) -> None:
        inside = [line, *(each for each, _ in self._inside(line))]
        kinds = [each.opcode for each in inside]
        chief = ("convolution", "dot", "scatter", "gather", "sort", *COLLECTIVES)
        kind = next((kind for kind in chief if kind in kinds), line.opcode)
        target = line.find(r'custom_call_target="([^"]*)"')
        where = next((each for each in inside if each.opcode == kind and self._place(each)), None)
        where = where or self._origin(line)
        self.program.operations.append(
            Operation(
                name=line.name,
                kind=target or kind,
                shape=_without_layout(line.shape),
                times=times,
                flops=Counter({k: n * times for k, n in self._flops(line, shapes).items()}),
                bytes=times * self._bytes(line, shapes),
                path=where.find(r'op_name="([^"]*)"'),
                place=self._place(where),
            )
        )

    def _add_collectives(self, line: Instruction, shapes: Mapping[str, str], times: int) -> None:
        for each, around in ((line, shapes), *self._inside(line)):
            kind = each.opcode.removesuffix("-start")
            channel = each.find(r"channel_id=(\d+)") or each.name
            # An asynchronous one may be printed in several fusions, of its beginning and its end.
            if kind not in COLLECTIVES or self.channels.setdefault(channel, each.name) != each.name:
                continue
            sent = sum(array_bytes(around.get(name, "")) for name in each.operands)
            made = array_bytes(each.shape)
            if each.opcode in ("all-gather-start", "collective-permute-start"):
                made -= sent  # their result has the operands in it
            self.program.collectives.append(
                Collective(
                    kind=kind,
                    bytes=max(sent, made),
                    times=times,
                    group=_group_size(each.rest),
                    shape=_without_layout(each.shape),
                    path=each.find(r'op_name="([^"]*)"'),
                    place=self._place(each),
                )
            )

    def _inside(self, line: Instruction) -> Iterator[tuple[Instruction, Mapping[str, str]]]:
        """Yields (instruction, shapes around it) of a fusion, nested ones too."""
        if line.opcode != "fusion":
            return
        for name in line.calls:
            shapes = self._shapes(name)
            for each in self.computations[name]:
                yield each, shapes
                yield from self._inside(each)

    def _flops(self, line: Instruction, shapes: Mapping[str, str]) -> Counter[str]:
        found: Counter[str] = Counter()
        for each, around in ((line, shapes), *self._inside(line)):
            operands = [around.get(name, "") for name in each.operands[:2]]
            count = _product_flops(each, operands)
            if count:
                found[_factors(each, operands)] += count
        return found

    def _bytes(self, line: Instruction, shapes: Mapping[str, str]) -> int:
        """Counts what an operation reads and writes; of what it only takes slices of, these."""
        if line.opcode == "copy-start":  # its result is (copy, source, …)
            copy = _ARRAY.search(line.shape)
            return stored_bytes(shapes.get(line.operands[0], "")) + stored_bytes(
                copy[0] if copy else ""
            )
        results = [found[0] for found in _ARRAY.finditer(line.shape)]
        if line.opcode != "fusion":
            read = sum(
                _read(shapes.get(name, ""), [(name, line)]) for name in dict.fromkeys(line.operands)
            )
            return read + sum(_written(result, line, shapes) for result in results)
        body, shapes = self.computations[line.calls[0]], self._shapes(line.calls[0])
        read = sum(
            _read(each.shape, self._uses(line.calls[0], each.name))
            for each in body
            if each.opcode == "parameter"
        )
        by_name = {each.name: each for each in body}
        root = next(each for each in body if each.is_root)
        roots = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
        makers = [self._maker(_through_bitcasts(each, by_name), shapes) for each in roots]
        return read + sum(_written(result, *maker) for result, maker in zip(results, makers))

    def _maker(
        self, line: Instruction, shapes: Mapping[str, str]
    ) -> tuple[Instruction, Mapping[str, str]]:
        """Looks into fusions within a fusion: which operation makes the result, and its shapes."""
        while line.opcode == "fusion":
            shapes = self._shapes(line.calls[0])
            by_name = {each.name: each for each in self.computations[line.calls[0]]}
            root = next(each for each in by_name.values() if each.is_root)
            line = _through_bitcasts(root, by_name)
        return line, shapes

    def _uses(self, computation: str, name: str) -> list[tuple[str, Instruction]]:
        """Lists who uses a value, under which name; looks through bitcasts and inner fusions."""
        found: list[tuple[str, Instruction]] = []
        for line in self.computations[computation]:
            if name not in line.operands:
                continue
            if line.opcode == "bitcast":
                found += self._uses(computation, line.name)
            elif line.opcode == "fusion":
                inside: list[tuple[str, Instruction]] = []
                for each in self.computations[line.calls[0]]:
                    if each.opcode == "parameter" and line.operands[int(each.arguments)] == name:
                        inside += self._uses(line.calls[0], each.name)
                found += inside or self._uses(computation, line.name)  # it may pass through
            else:
                found.append((name, line))
        return found

    def _trips(self, line: Instruction) -> int:
        """Returns how often a loop runs: as XLA says, or the bound that its condition compares."""
        known = line.find(r'known_trip_count":\{"n":"(\d+)"')
        if known:
            return int(known)
        condition = line.find(r"condition=%?([\w.\-]+)")
        lines = self.computations.get(condition, [])
        lines = [*lines, *(each for fused in lines for each, _ in self._inside(fused))]
        bounds = [
            int(each.arguments)
            for each in lines
            if each.opcode == "constant" and re.fullmatch(r"\d+", each.arguments)
        ]
        return max(bounds, default=1)

    def _shapes(self, computation: str) -> dict[str, str]:
        return {line.name: line.shape for line in self.computations[computation]}

    def _origin(self, line: Instruction) -> Instruction:
        """Returns the line, or the first before it that tells where it comes from."""
        origin = line
        while origin and not origin.find(r'op_name="([^"]*)"'):
            origin = self.made_by.get(origin.operands[0]) if origin.operands else None
        return origin or line

    def _place(self, line: Instruction) -> str:
        return self.places.get(line.find(r"stack_frame_id=(\d+)"), "")


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns ({computation: its lines}, the name of the entry)."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = _HEAD.match(line)
        begun = _INSTRUCTION.match(line)
        if head:
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif begun and current is not None:
            current.append(_instruction(begun[2], line[begun.end() :], is_root=bool(begun[1])))
    return found, entry


def _instruction(name: str, text: str, *, is_root: bool) -> Instruction:
    """Parses "SHAPE OPCODE(OPERANDS), ATTRIBUTES"; the shape may be a tuple."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opened = text.index("(", end)
    closed = _closing(text, opened)
    arguments = text[opened + 1 : closed]
    return Instruction(
        name=name,
        shape=text[:end],
        opcode=text[end:opened].strip(),
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments,
        rest=text[closed + 1 :],
        is_root=is_root,
    )


def _closing(text: str, opened: int) -> int:
    """Returns the place of the bracket that closes the one at `opened`."""
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text) - 1


def _numbers(text: str, separator: str = ",") -> list[int]:
    return [int(each) for each in text.split(separator) if each]


def _sizes(shape: str) -> list[int]:
    """Returns the sizes of the first array of a shape."""
    found = _ARRAY.search(shape)
    return _numbers(found[2]) if found else []


def _without_layout(shape: str) -> str:
    return re.sub(r"\{[^}]*\}", "", shape)


def _group_size(rest: str) -> int:
    """Returns the number of devices of a group; 0 where it is not said."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(_numbers(found[1]))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    return 0


def _factors(line: Instruction, operands: list[str]) -> str:
    """Returns the type of a product's factors, and the precision asked for where it is not XLA's.

    With mixed types the product is that of the wider one's.
    """
    types = [found[1] for shape in operands if (found := _ARRAY.search(shape))]
    kind = max(types, key=lambda kind: _ITEM_BYTES.get(kind, 0), default="")
    precision = line.find(r"operand_precision=\{(\w+)") if kind == "f32" else ""
    return f"{kind} {precision}" if precision in ("high", "highest") else kind


def _product_flops(line: Instruction, operands: list[str]) -> int:
    """Counts two for each multiply-add of a convolution or a product of matrices, else 0."""
    if line.opcode == "convolution":
        return _convolution_flops(line, operands)
    if line.opcode == "dot":
        sizes = _sizes(operands[0])
        contracted = _numbers(line.find(r"lhs_contracting_dims=\{([\d,]*)\}"))
        return 2 * math.prod(_sizes(line.shape)) * math.prod(sizes[axis] for axis in contracted)
    target = line.find(r'custom_call_target="([^"]*)"')
    if target.startswith("__cudnn$conv"):
        # The larger side of the three is x, the positions of y use the kernel once each.
        made, first, second = _sizes(line.shape), *map(_sizes, operands)
        y, kernel = {
            "__cudnn$convBackwardInput": (first, second),
            "__cudnn$convBackwardFilter": (second, made),
        }.get(target, (made, second))
        labels = line.find(r"dim_labels=\w+?_(\w+)->")
        return 2 * math.prod(y) * math.prod(kernel) // kernel[labels.index("o")]
    if target.startswith("__cublas$"):
        sizes = _sizes(operands[0])
        contracted = re.findall(r'lhs_contracting_dimensions":\[([^\]]*)\]', line.rest)
        axes = _numbers(contracted[0].replace('"', "")) if contracted else []
        return 2 * math.prod(_sizes(line.shape)) * math.prod(sizes[axis] for axis in axes)
    return 0


def _convolution_flops(line: Instruction, operands: list[str]) -> int:
    """Counts as `flops.convolution_flops`: with padding, without the zeros between inputs."""
    kernel, y = _sizes(operands[1]), _sizes(line.shape)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    assert labels, line.rest
    window = line.find(r"window=\{([^}]*)\}")
    count = len([label for label in labels[3] if label.isdigit()])
    strides = _window_numbers(window, "stride", count)
    dilations = _window_numbers(window, "lhs_dilate", count)
    kernel_dilations = _window_numbers(window, "rhs_dilate", count)
    pads = re.search(r"(?:^| )pad=(\S+)", window)
    lows = [int(pad.split("_")[0]) for pad in pads[1].split("x")] if pads else [0] * count
    total = 2 * kernel[labels[2].index("i")]
    total *= math.prod(y[labels[3].index(axis)] for axis in "bf")
    for axis in range(count):
        size_k, size_y = kernel[labels[2].index(str(axis))], y[labels[3].index(str(axis))]
        at = np.arange(size_y)[:, None] * strides[axis] - lows[axis]
        at = at + np.arange(size_k) * kernel_dilations[axis]
        total *= int((at % dilations[axis] == 0).sum())
    return total


def _window_numbers(window: str, name: str, count: int) -> list[int]:
    found = re.search(rf"(?:^| ){name}=(\S+)", window)
    return _numbers(found[1], "x") if found else [1] * count


def _read(shape: str, uses: list[tuple[str, Instruction]]) -> int:
    """Counts the bytes read of a value, by (the name it is used under, the user)."""
    whole = stored_bytes(shape)
    parts = 0
    for name, user in uses:
        if user.opcode in _SLICES and user.operands[0] == name:
            parts += stored_bytes(_in_main(user.shape))
        elif user.opcode not in _UPDATES or name in user.operands[1:]:
            parts += whole
    return min(whole, parts)


def _written(shape: str, maker: Instruction, shapes: Mapping[str, str]) -> int:
    """Counts the bytes written of a result; of one that is changed in place, the changes."""
    if maker.opcode in _UPDATES and stored_bytes(shape):
        changes = maker.operands[_UPDATES[maker.opcode]]
        return min(stored_bytes(_in_main(shapes.get(changes, shape))), stored_bytes(shape))
    return stored_bytes(shape)


def _in_main(shape: str) -> str:
    """Returns the shape of a slice as it lies in the main memory's array."""
    return re.sub(r"S\(\d+\)", "", shape)


def _through_bitcasts(line: Instruction, by_name: Mapping[str, Instruction]) -> Instruction:
    while line.opcode == "bitcast" and line.operands[0] in by_name:
        line = by_name[line.operands[0]]
    return line


def _places(text: str) -> dict[str, str]:
    """Returns {number of a stack frame: "file:line" of the layer or loss that it is of}."""
    files = dict(re.findall(r'^(\d+) "([^"]*)"$', _section(text, "FileNames"), re.MULTILINE))
    locations = {
        number: f"{files.get(file, '')}:{line}"
        for number, file, line in re.findall(
            r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)", _section(text, "FileLocations"), re.M
        )
    }
    frames = {
        number: (locations.get(location, ""), str(int(parent) - 1))
        for number, location, parent in re.findall(
            r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)",
            _section(text, "StackFrames"),
            re.MULTILINE,
        )
    }
    return {number: _innermost(number, frames) for number in frames}


def _innermost(number: str, frames: Mapping[str, tuple[str, str]]) -> str:
    """Returns the innermost place in this package, if there is one above its operations."""
    found = [PurePath(frames[number][0]).name]
    while number in frames:
        place, number = frames[number]
        parts = PurePath(place).parts
        if "psrjax" not in parts:
            continue
        last = len(parts) - 1 - parts[::-1].index("psrjax")
        found.append("/".join(parts[last:]))
        if parts[last + 1] not in _OPERATIONS:
            return found[-1]
    return found[1] if len(found) > 1 else found[0]


def _section(text: str, title: str) -> str:
    found = re.search(rf"^{title}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
