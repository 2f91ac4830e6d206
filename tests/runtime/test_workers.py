"""Work in other processes: in order, and a death is reported instead of waited for."""

import operator
import subprocess
import sys

import pytest

from psrjax.errors import UserError
from psrjax.runtime import workers


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_work(processes):
    with workers.mapping(operator.neg, processes) as each:
        assert list(each(range(20))) == [-i for i in range(20)]


def test_a_script_without_a_guard_ends_with_one_line_instead_of_hanging(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import operator\nfrom psrjax.runtime import workers\n"
        "with workers.mapping(operator.neg, 2) as each:\n    print(list(each(range(5))))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "psrjax.errors.UserError: a process at work died" in ended.stderr


def test_what_the_work_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError), workers.mapping(reciprocal, 2) as each:
        list(each([1, 0]))


def test_a_killed_process_is_a_users_error():
    with pytest.raises(UserError, match="a process at work died"), workers.mapping(die, 2) as each:
        list(each([1, 2, 3]))


def reciprocal(value):
    return 1 / value


def die(_):
    import os

    os._exit(9)
