"""A file fits a sitting, a function fits a screen.  A test may tell a longer story."""

import ast

FILE_LINES_MAX = 400
#: Without its docstring.
FUNCTION_LINES_MAX = 60


def test_files(sources):
    sizes = {path: len(path.read_text().splitlines()) for path in sources}
    assert {str(path): size for path, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_functions(sources):
    long = {}
    for path in sources:
        if path.suffix != ".py" or "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
                if size > FUNCTION_LINES_MAX:
                    long[f"{path}:{node.lineno} {node.name}"] = size
    assert long == {}


def _docstring_lines(node):
    if ast.get_docstring(node, clean=False) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1
