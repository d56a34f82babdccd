"""Our descriptors against the tables of BuildKit's API and of containerd's content service, row by row."""

import csv
import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field

TABLES = [Path(__file__).with_name(name) for name in ("protos.tsv", "protos-containerd.tsv")]
ROWS = [row for table in TABLES for row in csv.DictReader(table.open(), delimiter="\t")]
MODULES = sorted(p.stem for p in (Path(__file__).parents[2] / "wire" / "pb").glob("*_pb2.py"))
SCALARS = {getattr(Field, f"TYPE_{name.upper()}"): name for name in ("string", "bytes", "bool", "int32", "int64")}
SCALARS |= {getattr(Field, f"TYPE_{name.upper()}"): name for name in ("uint32", "uint64", "double", "float")}


@pytest.fixture(scope="module")
def pool():
    for name in MODULES:
        importlib.import_module(f"brickyard.wire.pb.{name}")
    return importlib.import_module("brickyard.wire.pb.pool").POOL


def type_name(field) -> str:
    kind = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        return f"map<{type_name(key)}, {type_name(value)}>"
    plain = kind.full_name if kind is not None else SCALARS[field.type]
    return f"repeated {plain}" if field.is_repeated else plain


def test_the_table_is_whole():
    assert len(ROWS) > 600
    assert {row["kind"] for row in ROWS} == {"field", "message", "enum", "rpc"}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['kind']}-{r['package']}.{r['parent']}.{r['name']}"[:90])
def test_row(pool, row):
    parent = f"{row['package']}.{row['parent']}"
    if row["kind"] == "message":
        assert not pool.FindMessageTypeByName(parent).fields
    elif row["kind"] == "enum":
        assert pool.FindEnumTypeByName(parent).values_by_name[row["name"]].number == int(row["number"])
    elif row["kind"] == "rpc":
        method = pool.FindServiceByName(parent).methods_by_name[row["name"]]
        ask = ("stream " if method.client_streaming else "") + method.input_type.full_name
        answer = ("stream " if method.server_streaming else "") + method.output_type.full_name
        assert f"{ask} -> {answer}" == row["type"]
    else:
        field = pool.FindMessageTypeByName(parent).fields_by_name[row["name"]]
        assert field.number == int(row["number"])
        assert type_name(field) == row["type"]
        oneof = f"oneof {field.containing_oneof.name}" if field.containing_oneof else ""
        assert oneof == (row["note"] if row["note"].startswith("oneof") else "")


def test_nothing_beyond_the_table(pool):
    fields = {(r["package"] + "." + r["parent"], r["name"]) for r in ROWS if r["kind"] == "field"}
    seen = set()

    def walk(message):
        if message.GetOptions().map_entry:
            return
        seen.update((message.full_name, f.name) for f in message.fields)
        for nested in message.nested_types:
            walk(nested)

    for name in MODULES:
        for message in importlib.import_module(f"brickyard.wire.pb.{name}").DESCRIPTOR.message_types_by_name.values():
            walk(message)
    assert seen == fields
