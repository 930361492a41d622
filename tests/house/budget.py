"""How large files and functions may be, and which ones are larger today.

    python -m tests.house.budget > tests/house/exceptions.txt

writes the list of exceptions, one a line: `path what value` or `path:function what value`. It may only get shorter.
"""
import ast
import pathlib

from tests.house import python_files

EXCEPTIONS = pathlib.Path(__file__).with_name("exceptions.txt")
FOLDERS = ("ref", "kernels", "bench", "tests")
COLUMNS = 120
MOST = {"lines": 300, "arguments": 15, "body": 40, "wide": 0}  # wide: how many lines of a file are longer than COLUMNS


def arguments(function):
    a = function.args
    return len(a.posonlyargs + a.args + a.kwonlyargs) + bool(a.vararg) + bool(a.kwarg)


def body(function):
    """The lines from the first statement after the docstring to the last."""
    statements = function.body[ast.get_docstring(function) is not None:]
    return function.end_lineno - statements[0].lineno + 1 if statements else 0


def functions(node, prefix=""):
    """(dotted name, function) of every function below a node, methods and nested ones too."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if named and not isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
        yield from functions(child, f"{prefix}{child.name}." if named else prefix)


def measured(path, source):
    """{(path or path:function, what): value} of one file; of functions with one name, the largest."""
    lines = source.splitlines()
    sizes = {(path, "lines"): len(lines), (path, "wide"): sum(len(line) > COLUMNS for line in lines)}
    for name, function in functions(ast.parse(source)):
        for what, value in (("arguments", arguments(function)), ("body", body(function))):
            key = f"{path}:{name}", what
            sizes[key] = max(value, sizes.get(key, 0))
    return sizes


def too_large(files):
    """Those of the sizes that exceed the budget."""
    sizes = [size for path, source in files.items() for size in measured(path, source).items()]
    return {key: value for key, value in sizes if value > MOST[key[1]]}


def listed():
    """The list of exceptions."""
    lines = (line.split() for line in EXCEPTIONS.read_text("utf-8").splitlines())
    return {(place, what): int(value) for place, what, value in lines}


def differences(real, allowed):
    """In words, what is larger than it may be and what the list of exceptions no longer has to allow."""
    said = []
    for key in sorted(real.keys() | allowed.keys()):
        place, what = key
        value, most = real.get(key, MOST[what]), allowed.get(key, MOST[what])
        if value > most:
            said.append(f"{place}: {what} {value}, at most {most}")
        elif key in allowed and (key not in real or value < most):
            size = value if key in real else "within the budget"
            said.append(f"{place}: {what} is {size} and the list allows {most}: shorten the list")
    return said


if __name__ == "__main__":
    for (place, what), value in sorted(too_large(python_files(*FOLDERS)).items()):
        print(place, what, value)
