"""Large memory pages: asked for once, where the system has them, and nothing else is changed."""

import os
import subprocess
import sys

import pytest

from psrjax.runtime import memory_pages

MADVISE = "always [madvise] never"


def test_the_setting_is_added_to_what_the_user_has():
    found = memory_pages.environment({"A": "1"}, "glibc 2.36", MADVISE)
    assert found == {"A": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    kept = memory_pages.environment({"GLIBC_TUNABLES": "glibc.rtld.x=2"}, "glibc 2.40", MADVISE)
    assert kept["GLIBC_TUNABLES"] == "glibc.rtld.x=2:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("libc", "mode", "tunables"),
    [
        ("", MADVISE, ""),
        ("musl 1.2", MADVISE, ""),
        ("glibc 2.31", MADVISE, ""),
        ("glibc 2.36", "[always] madvise never", ""),
        ("glibc 2.36", "always madvise [never]", ""),
        ("glibc 2.36", "", ""),
        ("glibc 2.36", MADVISE, "glibc.malloc.hugetlb=0"),
    ],
)
def test_nothing_is_asked_for_where_it_is_not_there_or_decided_already(libc, mode, tunables):
    assert memory_pages.environment({"GLIBC_TUNABLES": tunables}, libc, mode) is None


def test_the_program_starts_again_once_with_its_arguments_input_and_exit_code():
    code = (
        "import os, sys; from psrjax.runtime import memory_pages; print('begun', flush=True);"
        "memory_pages.use();"
        "print(sys.argv[1:], sys.stdin.read(), os.environ.get('GLIBC_TUNABLES')); sys.exit(7)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", code, "a b", "--c=d"],
        input="typed",
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    expected = memory_pages.environment(clean, memory_pages._libc(), memory_pages._mode())
    *begun, last = done.stdout.splitlines()
    tunables = (expected or {}).get("GLIBC_TUNABLES")
    assert last == f"['a b', '--c=d'] typed {tunables}"
    assert begun == ["begun"] * (2 if expected else 1)
