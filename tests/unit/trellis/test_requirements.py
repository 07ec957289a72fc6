"""What a file of requirements may say."""

import pytest

from trellis.requirements import LARGEST, check, has_hashes

HASH = f"--hash=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "text",
    [
        "", "# a remark\n\n", "numpy", "numpy==2.1.0", "numpy >= 2, < 3  # why", "torch[cuda,x]~=2.4 ; python_version >= '3.11'",
        f"numpy==2.1.0 \\\n    {HASH} \\\n    {HASH}\nscipy==1.0 {HASH}\n", "a.b-c_d (>=1)",
        "uvloop==0.21 ; sys_platform != 'win32' and implementation_name == 'cpython'",
    ],
)  # fmt: skip
def test_names_versions_markers_and_hashes_are_fine(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-r other.txt", "is an option"),
        ("--index-url https://evil.example/simple", "is an option"),
        ("--find-links /", "is an option"),
        ("-e .", "is an option"),
        ("x @ https://evil.example/x.whl", "names an address"),
        ("x@file:///etc/passwd", "names an address"),
        ("git+https://example.org/x", "names an address"),
        ("https://evil.example/x.whl", "names an address"),
        ("./local", "no requirement"),
        ("/etc/passwd", "no requirement"),
        ("../x.whl", "no requirement"),
        ("x==${SECRET}", "variable"),
        ("x --global-option=--run", "has an option"),
        ("x --config-settings=a=b", "has an option"),
        ("x==1 --hash=md5:0", "a hash that is none"),
        ("x==1 --hash=sha256:short", "a hash that is none"),
        ("x \\\n--index-url=https://evil.example", "names an address"),
        ("x y", "no requirement"),
    ],
)
def test_what_says_where_packages_come_from_or_would_run_while_it_is_built_is_refused_by_line(
    line: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check(f"numpy\n# a remark\n{line}\n")
    assert str(caught.value).startswith("line 3")


def test_what_is_too_large_is_not_read() -> None:
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        check("x\n" * LARGEST)


def test_one_hash_means_that_all_are_wanted() -> None:
    assert has_hashes(f"a\nb==1 \\\n {HASH}\n")
    assert not has_hashes(f"a\n# b==1 {HASH}\n")
