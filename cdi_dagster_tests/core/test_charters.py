"""What module charters promise, held against the source itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import cdi_dagster

PACKAGE = Path(cdi_dagster.__file__).parent
KEY_PARTS = (
    "corporate_data_ingestion/",
    "corporate_storage/",
    "_control/",
    "_coalescer/",
    "_SUCCESS",
    "pinned/",
    "runs/",
    "rejects/",
    "launches/",
    "failure.json",
    "pinned_input.json",
)
"""Of keys in storage: whoever needs a key of these takes it from `core.storage_keys`."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the string constants that are no docstring and not part of a sentence."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            if " " not in node.value:
                yield node


def test_keys_in_storage_are_named_in_one_module():
    named_in = {"core/storage_keys.py", "core/collections.py"}  # a day's corporate prefix belongs to CollectionDay
    found = [
        f"{name}:{text.lineno} {text.value!r}"
        for name, tree in sources()
        if name not in named_in
        for text in texts(tree)
        # Addresses of the Dagster UI have runs/ too.
        if any(part in text.value for part in KEY_PARTS) and not text.value.startswith("/runs/")
    ]
    assert found == []


def test_aws_clients_are_made_in_one_module():
    makes = {"client", "resource", "create_client", "Session"}

    def makes_client(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module in ("boto3", "botocore.session")
        named = isinstance(node, ast.Attribute) and node.attr in makes and isinstance(node.value, ast.Name)
        return named and node.value.id in ("boto3", "botocore", "session")

    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if name != "aws/clients.py"
        for node in ast.walk(tree)
        if makes_client(node)
    ]
    assert found == []


def test_days_are_counted_in_one_module():
    counted_in = {"core/days.py"}

    def counts_days(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return any(alias.name == "ONE_DAY" for alias in node.names)
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)):
            return False
        calls = [side for side in (node.left, node.right) if isinstance(side, ast.Call)]
        named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "timedelta"]
        return any(keyword.arg == "days" for call in named for keyword in call.keywords)

    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if name not in counted_in
        for node in ast.walk(tree)
        if counts_days(node)
    ]
    assert found == []


def test_the_clock_is_read_in_few_places():
    """A decision gets the time as an argument: only the clock itself, programs and what measures may read it."""
    reads = {"clock.py"}

    def reads_clock(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("now", "today", "utcnow")
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("datetime", "date")
        )

    core = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if name not in reads and name.startswith(("core/", "coalescer_status/", "ingestion/"))
        for node in ast.walk(tree)
        if reads_clock(node)
    ]
    assert core == []
