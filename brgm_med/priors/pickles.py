"""Pickles of networks, read as data: nothing in the file is run.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever the program names.
This one imports nothing and calls nothing of Python's. Of the instructions it knows those that build numbers, texts,
lists and dictionaries. A name (such as `torch._utils._rebuild_tensor_v2`) stays a text, and where the program calls one
it must be a key of the rules, which say in our own terms what the call means. Memory stays in proportion to the file: a
size is never believed before the bytes are there.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from brgm_med.priors.records import Inert, MalformedError, Name

MOST_STEPS = 1_000_000
"""Instructions in one pickle; one of three networks of 1024 x 1024 pixels has some 36,000."""

Rule = Callable[..., Any] | None
Pid = Callable[[Any], Any]


def interpret(stream: BinaryIO, rules: Mapping[tuple[str, str], Rule], persistent: Pid | None = None) -> Any:
    """Value that the pickle at the position of `stream` describes; leaves the position behind it.

    `rules` says of (module, name) what a call of it means, None for a name that is only named; `persistent` what a
    persistent id stands for. Raises MalformedError, or one of the errors of a container for what is no such pickle.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def name(module: Any, text: Any) -> Name:
        if not type(module) is type(text) is str:
            raise MalformedError("asks for what has no name")
        if (module, text) not in rules:
            raise MalformedError(f"asks for {Name(module, text)}, which no network needs")
        return Name(module, text)

    def store(target: Any, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only plain keys: the hash of a deeply nested one would overflow Python's own stack.
            if type(target) is not dict or type(key) not in (str, int):
                raise MalformedError("has a dictionary that no network has")
            target[key] = value

    def extend(target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise MalformedError("appends to what is no list")
        target.extend(items)

    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step == MOST_STEPS:
            raise MalformedError("has more instructions than any network needs")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(stack)
                stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT":
                stack.append(argument)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_SET":  # a set becomes a list: nothing is hashed
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items, stack = stack, marks.pop()
                stack.append(tuple(items))
            case "APPEND":
                item = stack.pop()
                extend(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items, stack = stack, marks.pop()
                extend(stack[-1], items)
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                store(stack[-1], items)
            case "SETITEMS":
                items, stack = stack, marks.pop()
                store(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                text, module = stack.pop(), stack.pop()
                stack.append(name(module, text))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                rule = rules[called.module, called.name] if type(called) is Name else None
                if rule is None or type(arguments) is not tuple:
                    raise MalformedError("calls what is no function")
                stack.append(rule(*arguments))
            case "BUILD":
                # Attributes of a dictionary (a state dict's versions) or of something inert: no weights.
                stack.pop()
                if type(stack[-1]) not in (dict, Inert):
                    raise MalformedError("sets attributes of what has none")
            case "BINPERSID" if persistent is not None:
                stack.append(persistent(stack.pop()))
            case _:
                raise MalformedError(f"has an instruction ({opcode.name}) that no network needs")
    raise MalformedError("is cut short")
