"""``row_condition`` of an expectation as a condition in SQL that chooses the rows that pandas would choose.

pandas knows true and false, SQL also unknown: with a missing value every comparison of pandas is false, but ``!=`` and
``not in``, which are true.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
_IN, _NOT_IN = (ast.Eq, ast.In), (ast.NotEq, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
}


def sql_condition(text: str, columns: Mapping[str, Any], times: Mapping[str, Any]) -> Any:
    """The condition as an expression of SQLAlchemy, true or false for every row.

    :param text: as :func:`~airflow_mlops.ml.expectations.build` lets it through: comparisons of columns with values.
    :param columns: name → SQLAlchemy's column.
    :param times: those of ``columns`` that hold times; text that they are compared with is read as one.
    :raises ValueError: what it asks for has no form here, in words.
    """
    return _Condition(columns, times).of(ast.parse(text, mode="eval").body)


class _Condition:
    def __init__(self, columns: Mapping[str, Any], times: Mapping[str, Any]) -> None:
        self._columns, self._times = columns, times

    def of(self, node: ast.expr) -> Any:
        """What is true or false of a row."""
        if isinstance(node, ast.BoolOp):
            join = sa.and_ if isinstance(node.op, ast.And) else sa.or_
            return join(*(self.of(v) for v in node.values))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            join = sa.and_ if isinstance(node.op, ast.BitAnd) else sa.or_
            return join(self.of(node.left), self.of(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            return sa.not_(self.of(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return sa.and_(*(self._comparison(a, o, b) for a, o, b in zip(sides, node.ops, sides[1:], strict=False)))
        if isinstance(node, ast.Name):
            return _settled(self._value(node) == sa.true(), unknown=False)
        raise ValueError(f"`{ast.unparse(node)}` is no comparison; write `and`, `or` between comparisons")

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Any:
        unknown = isinstance(operator, _NOT_IN)
        if isinstance(right, ast.List | ast.Tuple):
            if not isinstance(operator, (*_IN, *_NOT_IN)):
                raise ValueError(f"`{ast.unparse(right)}` is a list: use `in` or `not in`")
            found = self._value(left).in_([self._value(v, left) for v in right.elts])
            return _settled(sa.not_(found) if unknown else found, unknown)
        if type(operator) not in _COMPARISONS:
            raise ValueError(f"`{ast.unparse(right)}` is no list of values")
        compared = _COMPARISONS[type(operator)](self._value(left, right), self._value(right, left))
        return _settled(compared, unknown)

    def _value(self, node: ast.expr, other: ast.expr | None = None) -> Any:
        """A number, text or time; ``other`` is what it is compared with."""
        if isinstance(node, ast.Name):
            return self._columns[node.id]
        if isinstance(node, ast.Constant):
            of_time = isinstance(other, ast.Name) and other.id in self._times
            value = datetime.fromisoformat(node.value) if of_time and isinstance(node.value, str) else node.value
            return sa.literal(value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](self._value(node.left), self._value(node.right))
        raise ValueError(f"`{ast.unparse(node)}` is no value that a database would compute as pandas does")


def _settled(condition: Any, unknown: bool) -> Any:
    """``condition`` with a value where it is unknown; not all databases have true and false as values."""
    wanted = sa.case((condition, 1), (sa.not_(condition), 0), else_=int(unknown))
    return wanted == 1
